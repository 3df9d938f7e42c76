//! Rendered bundles, kept in the cluster: what a rollback needs while Git is down.
//!
//! A bundle is the canonical JSON of its objects, compressed with gzip and cut into Secrets that belong
//! to the Environment. Secrets, because manifests of kind Secret are in it.

use std::io::{Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::object::{Digest, Object, canonical_json};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::error::Error;
use super::request::{Call, Target};
use super::{Cluster, Kind};
use crate::api::Environment;

/// The type of the Secrets.
pub const SECRET_TYPE: &str = "holdfast.dev/bundle";
const OWNER_LABEL: &str = "holdfast.dev/bundle-of";
const DIGEST_ANNOTATION: &str = "holdfast.dev/bundle-digest";
const PARTS_ANNOTATION: &str = "holdfast.dev/bundle-parts";
const CONTENT_ANNOTATION: &str = "holdfast.dev/bundle-content";
const KEY: &str = "bundle.json.gz";
/// Bytes of a part: with the third that base64 adds it stays below the 1 MiB that Secrets may have.
const PART: usize = 700 * 1024;
/// A bundle may not grow beyond this when it is unpacked: a damaged one must not fill the memory.
const LARGEST: u64 = 256 * 1024 * 1024;

impl Cluster {
    /// Keeps a bundle. Keeping it again does nothing.
    ///
    /// # Errors
    /// When the cluster cannot be written to, or the Environment was not read from one.
    pub async fn store_bundle(
        &self,
        environment: &Environment,
        digest: &Digest,
        objects: &[Object],
    ) -> Result<(), Error> {
        let uid = uid(environment)?;
        let text =
            canonical_json(&Value::Array(objects.iter().map(|object| object.value().clone()).collect()));
        let content = Digest::of_bytes(text.as_bytes());
        let packed = pack(text.as_bytes());
        let parts: Vec<&[u8]> = packed.chunks(PART).collect();
        let kind = secret_kind();
        // The first part says how many there are; it comes last, so that a bundle is whole once it exists.
        for (i, part) in parts.iter().enumerate().rev() {
            let secret = json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {
                    "name": part_name(uid, digest, i),
                    "namespace": environment.namespace(),
                    "labels": {OWNER_LABEL: uid, "app.kubernetes.io/managed-by": "holdfast"},
                    "annotations": {
                        DIGEST_ANNOTATION: digest.to_string(),
                        PARTS_ANNOTATION: parts.len().to_string(),
                        CONTENT_ANNOTATION: content.to_string(),
                    },
                    "ownerReferences": [{
                        "apiVersion": "holdfast.dev/v1alpha1",
                        "kind": "Environment",
                        "name": environment.name(),
                        "uid": uid,
                    }],
                },
                "type": SECRET_TYPE,
                "immutable": true,
                "data": {KEY: STANDARD.encode(part)},
            });
            let target = Target::collection(&kind, Some(environment.namespace()));
            match self.call(Call::create(target, &secret)).await {
                Ok(_) => {}
                Err(Error::AlreadyExists(_)) => self.heal(environment, uid, digest, i, &secret).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads a bundle back.
    ///
    /// # Errors
    /// [`Error::BundleMissing`] and [`Error::BundleDamaged`] when it has to be rendered anew.
    pub async fn load_bundle(
        &self,
        environment: &Environment,
        digest: &Digest,
    ) -> Result<Vec<Object>, Error> {
        let uid = uid(environment)?;
        let damaged = |message: &str| Error::BundleDamaged { digest: *digest, message: message.to_owned() };
        let first = self.part(environment, uid, digest, 0).await?.ok_or(Error::BundleMissing(*digest))?;
        let annotations = &first["metadata"]["annotations"];
        if annotations[DIGEST_ANNOTATION].as_str() != Some(&digest.to_string()) {
            return Err(damaged("it is another bundle"));
        }
        let parts: usize = annotations[PARTS_ANNOTATION]
            .as_str()
            .and_then(|text| text.parse().ok())
            .filter(|parts| (1..=LARGEST as usize / PART).contains(parts))
            .ok_or_else(|| damaged("the number of its parts is missing"))?;
        let content: Digest = annotations[CONTENT_ANNOTATION]
            .as_str()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| damaged("the digest of its content is missing"))?;
        let mut packed = part_data(&first).ok_or_else(|| damaged("part 0 has no data"))?;
        for i in 1..parts {
            let part = self.part(environment, uid, digest, i).await?;
            let data =
                part.as_ref().and_then(part_data).ok_or_else(|| damaged(&format!("part {i} is missing")))?;
            packed.extend(data);
        }
        let text = unpack(&packed).map_err(|error| damaged(&error.to_string()))?;
        if Digest::of_bytes(&text) != content {
            return Err(damaged("its content is not what was stored"));
        }
        serde_json::from_slice(&text).map_err(|error| damaged(&error.to_string()))
    }

    /// Drops all bundles of an environment but these.
    ///
    /// # Errors
    /// When the cluster cannot be read or written.
    pub async fn forget_bundles_except(
        &self,
        environment: &Environment,
        keep: &[Digest],
    ) -> Result<(), Error> {
        let uid = uid(environment)?;
        let kind = secret_kind();
        let target = Target::collection(&kind, Some(environment.namespace()));
        let list = Call::list(target).with("labelSelector", format!("{OWNER_LABEL}={uid}")).metadata_only();
        let list = self.call(list).await?;
        for secret in list["items"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let metadata = &secret["metadata"];
            let digest = metadata["annotations"][DIGEST_ANNOTATION]
                .as_str()
                .and_then(|text| text.parse::<Digest>().ok());
            if digest.is_some_and(|digest| keep.contains(&digest)) {
                continue;
            }
            let Some(name) = metadata["name"].as_str() else { continue };
            let options = json!({"preconditions": {"uid": metadata["uid"]}});
            let target = Target::object(&kind, Some(environment.namespace()), name);
            match self.call(Call::delete(target, &options)).await {
                Ok(_) | Err(Error::NotFound { .. } | Error::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Replaces a part that is there already unless it is what it should be.
    async fn heal(
        &self,
        environment: &Environment,
        uid: &str,
        digest: &Digest,
        i: usize,
        secret: &Value,
    ) -> Result<(), Error> {
        let same = |have: &Value| {
            have["data"] == secret["data"]
                && [DIGEST_ANNOTATION, PARTS_ANNOTATION, CONTENT_ANNOTATION]
                    .iter()
                    .all(|key| have["metadata"]["annotations"][key] == secret["metadata"]["annotations"][key])
        };
        if self.part(environment, uid, digest, i).await?.as_ref().is_some_and(same) {
            return Ok(());
        }
        let kind = secret_kind();
        let name = part_name(uid, digest, i);
        let target = Target::object(&kind, Some(environment.namespace()), &name);
        match self.call(Call::delete(target, &json!({}))).await {
            Ok(_) | Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let target = Target::collection(&kind, Some(environment.namespace()));
        self.call(Call::create(target, secret)).await.map(drop)
    }

    async fn part(
        &self,
        environment: &Environment,
        uid: &str,
        digest: &Digest,
        i: usize,
    ) -> Result<Option<Value>, Error> {
        let kind = secret_kind();
        let name = part_name(uid, digest, i);
        match self.call(Call::get(Target::object(&kind, Some(environment.namespace()), &name))).await {
            Ok(secret) => Ok(Some(secret)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn uid(environment: &Environment) -> Result<&str, Error> {
    environment.metadata.uid.as_deref().ok_or_else(|| Error::NotStored(environment.key()))
}

fn secret_kind() -> Kind {
    Kind::known("v1", "Secret", "secrets")
}

fn part_name(uid: &str, digest: &Digest, i: usize) -> String {
    format!("holdfast-bundle-{uid}-{}-{i}", &digest.hex()[..32])
}

fn part_data(secret: &Value) -> Option<Vec<u8>> {
    STANDARD.decode(secret["data"][KEY].as_str()?).ok()
}

fn pack(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail.
    let _ = encoder.write_all(text);
    encoder.finish().unwrap_or_default()
}

fn unpack(packed: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let read = GzDecoder::new(packed).take(LARGEST).read_to_end(&mut text)?;
    if read as u64 == LARGEST {
        return Err(std::io::Error::other("it unpacks to more than 256 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_is_undone_by_unpacking_and_bombs_are_refused() {
        let text = b"[{\"kind\":\"ConfigMap\"}]".repeat(1000);
        assert_eq!(unpack(&pack(&text)).unwrap(), text);
        assert!(unpack(b"not gzip").is_err());
        let bomb = pack(&vec![b' '; LARGEST as usize + 1]);
        assert!(bomb.len() < PART && unpack(&bomb).is_err());
    }

    #[test]
    fn part_names_are_names() {
        let name = part_name("9f0f5b6e-54f7-4c57-9a54-0a58ffb2c5a0", &Digest::of_bytes(b""), 11);
        assert!(
            name.len() < 100
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        );
    }
}
