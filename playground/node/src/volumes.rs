//! Volumes as local folders.
//!
//! ConfigMaps, Secrets, projections and the downward API are written as kubelet does: into a new folder that a
//! symbolic link `..data` is switched to in one step, so that a reader sees all of an update or nothing of it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod, Volume};

use crate::environment::Lookup;
use crate::fields;
use crate::tokens::Tokens;

/// What a volume contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Files by relative path, with their modes.
    Files(BTreeMap<String, (Vec<u8>, u32)>),
    /// An empty folder that lives as long as the pod.
    Scratch,
    /// A folder that outlives the pod, by the claim's name.
    Claim(String),
    /// A folder of the host.
    Host(PathBuf),
}

/// Decides what a volume contains at the moment.
///
/// # Errors
/// What is missing or not supported, in the words of a `FailedMount` event.
pub(crate) fn content(
    pod: &Pod,
    ip: Ipv4Addr,
    volume: &Volume,
    lookup: &dyn Lookup,
    allocatable: &BTreeMap<String, f64>,
    tokens: &Tokens,
) -> Result<Content, String> {
    let mut files = Files { pod, ip, lookup, allocatable, list: BTreeMap::new() };
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode;
        files.config_map(&source.name, source.items.as_deref(), source.optional, mode)?;
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        files.secret(name, source.items.as_deref(), source.optional, source.default_mode)?;
    } else if let Some(source) = &volume.downward_api {
        files.downward(source.items.as_deref(), source.default_mode)?;
    } else if let Some(source) = &volume.projected {
        for part in source.sources.iter().flatten() {
            if let Some(part) = &part.config_map {
                files.config_map(&part.name, part.items.as_deref(), part.optional, source.default_mode)?;
            } else if let Some(part) = &part.secret {
                files.secret(&part.name, part.items.as_deref(), part.optional, source.default_mode)?;
            } else if let Some(part) = &part.downward_api {
                files.downward(part.items.as_deref(), source.default_mode)?;
            } else if let Some(part) = &part.service_account_token {
                let token = tokens.get(part).ok_or("the service account's token is not there yet")?;
                files.put(&part.path, token.into_bytes(), source.default_mode)?;
            }
        }
    } else if let Some(source) = &volume.persistent_volume_claim {
        return Ok(Content::Claim(source.claim_name.clone()));
    } else if let Some(source) = &volume.host_path {
        return Ok(Content::Host(PathBuf::from(&source.path)));
    } else if volume.empty_dir.is_some() || volume.ephemeral.is_some() {
        return Ok(Content::Scratch);
    } else {
        return Err(format!("volume \"{}\" is of a kind that this node does not know", volume.name));
    }
    Ok(Content::Files(files.list))
}

struct Files<'a> {
    pod: &'a Pod,
    ip: Ipv4Addr,
    lookup: &'a dyn Lookup,
    allocatable: &'a BTreeMap<String, f64>,
    list: BTreeMap<String, (Vec<u8>, u32)>,
}

impl Files<'_> {
    fn config_map(
        &mut self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: Option<i32>,
    ) -> Result<(), String> {
        let Some(map) = self.lookup.config_map(self.namespace(), name) else {
            return if optional == Some(true) {
                Ok(())
            } else {
                Err(format!("configmap \"{name}\" not found"))
            };
        };
        let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
        let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
        self.keys(text.chain(binary).collect(), items, optional, mode)
    }

    fn secret(
        &mut self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: Option<i32>,
    ) -> Result<(), String> {
        let Some(secret) = self.lookup.secret(self.namespace(), name) else {
            return if optional == Some(true) { Ok(()) } else { Err(format!("secret \"{name}\" not found")) };
        };
        let data = secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect();
        self.keys(data, items, optional, mode)
    }

    fn downward(&mut self, items: Option<&[DownwardAPIVolumeFile]>, mode: Option<i32>) -> Result<(), String> {
        for item in items.into_iter().flatten() {
            let value = match (&item.field_ref, &item.resource_field_ref) {
                (Some(selector), _) => fields::field(self.pod, self.ip, selector)?,
                (None, Some(selector)) => fields::resource(self.pod, None, selector, self.allocatable)?,
                (None, None) => continue,
            };
            self.put(&item.path, value.into_bytes(), item.mode.or(mode))?;
        }
        Ok(())
    }

    fn keys(
        &mut self,
        mut data: BTreeMap<String, Vec<u8>>,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: Option<i32>,
    ) -> Result<(), String> {
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            return data.into_iter().try_for_each(|(key, value)| self.put(&key, value, mode));
        };
        for item in items {
            match data.remove(&item.key) {
                Some(value) => self.put(&item.path, value, item.mode.or(mode))?,
                None if optional == Some(true) => {}
                None => return Err(format!("references non-existent key: {}", item.key)),
            }
        }
        Ok(())
    }

    fn put(&mut self, path: &str, value: Vec<u8>, mode: Option<i32>) -> Result<(), String> {
        let inside = !path.is_empty()
            && !path.starts_with("..")
            && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if !inside {
            return Err(format!("invalid path {path:?}: it must stay inside the volume"));
        }
        let mode = mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644) & 0o777;
        self.list.insert(path.to_owned(), (value, mode));
        Ok(())
    }

    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }
}

const DATA: &str = "..data";

/// Makes `folder` contain these files, in one step; `generation` names the new contents and must not repeat.
pub(crate) fn write(
    folder: &Path,
    files: &BTreeMap<String, (Vec<u8>, u32)>,
    generation: u64,
) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let link = folder.join(DATA);
    let before = fs::read_link(&link).ok();
    let name = format!("..{generation:020}");
    let target = folder.join(&name);
    fs::create_dir_all(&target)?;
    for (path, (value, mode)) in files {
        let path = target.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, value)?;
        // The owner can always read and replace what this node wrote.
        fs::set_permissions(&path, fs::Permissions::from_mode(mode | 0o400))?;
    }
    let next = folder.join("..data_next");
    let _ = fs::remove_file(&next);
    symlink(&name, &next)?;
    fs::rename(&next, &link)?;
    // The visible names lead through the link.
    let top: std::collections::BTreeSet<&str> =
        files.keys().map(|path| path.split('/').next().unwrap_or(path)).collect();
    for name in &top {
        let visible = folder.join(name);
        if fs::symlink_metadata(&visible).is_err() {
            symlink(Path::new(DATA).join(name), &visible)?;
        }
    }
    for entry in fs::read_dir(folder)?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !top.contains(name.as_ref()) && entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    if let Some(before) = before.filter(|before| before.as_os_str() != name.as_str()) {
        let _ = fs::remove_dir_all(folder.join(before));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ConfigMap, Secret};
    use serde_json::{Value, json};
    use std::sync::Arc;

    struct Objects;

    impl Lookup for Objects {
        fn config_map(&self, _: &str, name: &str) -> Option<Arc<ConfigMap>> {
            let map = json!({"data": {"a.txt": "one", "b.txt": "two"}});
            (name == "settings").then(|| Arc::new(serde_json::from_value(map).unwrap()))
        }

        fn secret(&self, _: &str, _: &str) -> Option<Arc<Secret>> {
            None
        }
    }

    fn files(volume: Value) -> Result<BTreeMap<String, (Vec<u8>, u32)>, String> {
        let mut value = json!({"name": "v"});
        value.as_object_mut().unwrap().extend(volume.as_object().unwrap().clone());
        let volume: Volume = serde_json::from_value(value).unwrap();
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "d"}})).unwrap();
        match content(&pod, Ipv4Addr::LOCALHOST, &volume, &Objects, &BTreeMap::new(), &Tokens::default())? {
            Content::Files(files) => Ok(files),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn keys_are_projected_with_their_modes() {
        let all = files(json!({"configMap": {"name": "settings"}})).unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a.txt", "b.txt"]);
        let some = files(json!({"configMap": {"name": "settings", "defaultMode": 0o600,
            "items": [{"key": "a.txt", "path": "x/y.txt"}]}}))
        .unwrap();
        assert_eq!(some["x/y.txt"], (b"one".to_vec(), 0o600));
    }

    #[test]
    fn a_token_is_waited_for() {
        let volume = json!({"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}});
        assert!(files(volume).unwrap_err().contains("not there yet"));
    }

    #[test]
    fn what_is_missing_or_leads_outside_is_refused() {
        for (volume, message) in [
            (json!({"configMap": {"name": "none"}}), "configmap \"none\" not found"),
            (
                json!({"configMap": {"name": "settings", "items": [{"key": "z", "path": "z"}]}}),
                "references non-existent key: z",
            ),
            (
                json!({"configMap": {"name": "settings", "items": [{"key": "a.txt", "path": "../../etc/x"}]}}),
                "invalid path \"../../etc/x\": it must stay inside the volume",
            ),
            (
                json!({"configMap": {"name": "settings", "items": [{"key": "a.txt", "path": "/etc/x"}]}}),
                "invalid path \"/etc/x\": it must stay inside the volume",
            ),
        ] {
            assert_eq!(files(volume).unwrap_err(), message);
        }
        assert!(files(json!({"secret": {"secretName": "none", "optional": true}})).unwrap().is_empty());
    }

    #[test]
    fn an_update_replaces_everything_at_once() {
        let folder = std::env::temp_dir().join(format!("volume-{}", std::process::id()));
        let file = |text: &str| (text.as_bytes().to_vec(), 0o644);
        let first = BTreeMap::from([("a".to_owned(), file("1")), ("d/b".to_owned(), file("1"))]);
        write(&folder, &first, 1).unwrap();
        assert_eq!(fs::read_to_string(folder.join("d/b")).unwrap(), "1");
        write(&folder, &BTreeMap::from([("a".to_owned(), file("2"))]), 2).unwrap();
        assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "2");
        assert!(!folder.join("d").exists());
        let left = fs::read_dir(&folder).unwrap().count();
        assert_eq!(left, 3, "the link, the data and one name");
        fs::remove_dir_all(&folder).unwrap();
    }
}
