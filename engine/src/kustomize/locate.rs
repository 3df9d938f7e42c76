//! Where the entries of a kustomization lead.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::error::RenderError;
use super::fields::Located;
use super::generators::{Content, SourceFile};
use super::kustomization::{FILE_NAMES, Kustomization};
use super::render::Renderer;
use super::resource::{Resource, Source};
use super::tree::{EntryKind, join};
use crate::sops::{self, Format, Style};

impl Renderer<'_> {
    /// The kustomization file of a folder, if there is one.
    pub(super) fn kustomization_file(&self, directory: &str) -> Result<Option<String>, RenderError> {
        let mut found: Option<String> = None;
        for name in FILE_NAMES {
            let path = join(directory, name).unwrap_or_default();
            if let Some((file, EntryKind::File)) = self.reader.resolve(&path)? {
                if let Some(first) = found {
                    return Err(RenderError::Invalid {
                        source_at: Source::new(file, 1),
                        problem: format!(
                            "{first} is a kustomization of this folder too; keep one of the two"
                        ),
                    });
                }
                found = Some(file);
            }
        }
        Ok(found)
    }

    /// The kustomization of a folder that another one names.
    pub(super) fn nested(
        &self,
        directory: &str,
        entry: &Located,
        component: bool,
    ) -> Result<(String, Kustomization), RenderError> {
        let invalid = |problem: String| RenderError::Invalid { source_at: entry.source.clone(), problem };
        let (inner, kind) = self.locate(directory, entry)?;
        let file = match kind {
            EntryKind::Directory => self.kustomization_file(&inner)?,
            _ => None,
        };
        let Some(file) = file else {
            return Err(invalid(format!(
                "the folder {:?} has no kustomization.yaml; add one, or name its files one by one",
                entry.text
            )));
        };
        let nested = Kustomization::read(&self.text(&file)?, &file)?;
        match (component, nested.is_component) {
            (true, false) => {
                Err(invalid(format!("{:?} is no Component; name it under resources", entry.text)))
            }
            (false, true) => {
                Err(invalid(format!("{:?} is a Component; name it under components", entry.text)))
            }
            _ => Ok((inner, nested)),
        }
    }

    /// Where an entry leads and what is there. Remote entries are refused by name.
    pub(super) fn locate(
        &self,
        directory: &str,
        entry: &Located,
    ) -> Result<(String, EntryKind), RenderError> {
        let is_url =
            entry.text.contains("://") || entry.text.starts_with("git@") || entry.text.starts_with("git::");
        let refused = || RenderError::Refused {
            source_at: entry.source.clone(),
            what: format!("the remote base {:?}", entry.text),
            instead: "copy it into the repository, or add it as a Git subtree".to_owned(),
        };
        if is_url {
            return Err(refused());
        }
        let path = join(directory, &entry.text).ok_or_else(|| RenderError::Invalid {
            source_at: entry.source.clone(),
            problem: format!("{:?} leads out of the repository; use a path inside of it", entry.text),
        })?;
        match self.reader.resolve(&path)? {
            Some(found) => Ok(found),
            None if entry.text.starts_with("github.com/") || entry.text.contains("?ref=") => Err(refused()),
            None => Err(RenderError::NotFound { source_at: entry.source.clone(), path }),
        }
    }

    /// A file that an entry names.
    pub(super) fn find(&self, directory: &str, entry: &Located) -> Result<String, RenderError> {
        match self.locate(directory, entry)? {
            (file, EntryKind::File) => Ok(file),
            _ => Err(RenderError::Invalid {
                source_at: entry.source.clone(),
                problem: format!("{:?} is a folder, a file is needed", entry.text),
            }),
        }
    }

    /// What a generator reads, decrypted where it is encrypted.
    pub(super) fn load(&self, directory: &str, file: &SourceFile<'_>) -> Result<Vec<u8>, RenderError> {
        match file.content {
            Content::File(path) => {
                let entry = Located { text: path.to_owned(), source: file.at.clone() };
                let path = self.find(directory, &entry)?;
                self.plain(self.reader.bytes(&path)?, file.format, &path, Style::AsSops)
            }
            Content::Literal { whole, value } => {
                // What came out of an encrypted kustomization is no less confidential without its key.
                let mut confidential = self.confidential.borrow_mut();
                if confidential.holds(whole) {
                    confidential.add(value);
                }
                drop(confidential);
                self.inner(value.as_bytes().to_vec(), file.format, file.at)
            }
        }
    }

    /// Decrypts the entries of a Secret that hold encrypted files, as Flux does.
    pub(super) fn open_entries(&self, secret: &mut Resource) -> Result<(), RenderError> {
        if secret.kind() != "Secret" || sops::is_left_alone(secret.value()) {
            return Ok(());
        }
        let source = secret.source.clone();
        let mut value = secret.edit();
        let Some(Value::Object(data)) = value.get_mut("data") else { return Ok(()) };
        for (key, entry) in data {
            let encoded = entry.as_str().map(|text| text.split_ascii_whitespace().collect::<String>());
            let Some(content) = encoded.and_then(|text| STANDARD.decode(text).ok()) else { continue };
            if sops::may_be_encrypted(&content) {
                let plain = self.inner(content, Format::of_name(key), &source)?;
                *entry = Value::String(STANDARD.encode(plain));
            }
        }
        Ok(())
    }

    /// What stands inside of a file; errors name the place of the whole.
    fn inner(&self, content: Vec<u8>, format: Format, at: &Source) -> Result<Vec<u8>, RenderError> {
        self.plain(content, format, &at.file, Style::AsSops).map_err(|mut error| {
            if let RenderError::Sops(error) = &mut error {
                error.line = at.line;
            }
            error
        })
    }

    /// The text of a kustomization, of a file with objects or of a patch, decrypted where it is encrypted.
    pub(super) fn text(&self, file: &str) -> Result<String, RenderError> {
        let content = self.plain(self.reader.bytes(file)?, Format::Yaml, file, Style::Lines)?;
        String::from_utf8(content).map_err(|_| RenderError::NotText { path: file.to_owned() })
    }

    fn plain(
        &self,
        content: Vec<u8>,
        format: Format,
        file: &str,
        style: Style,
    ) -> Result<Vec<u8>, RenderError> {
        if !sops::may_be_encrypted(&content) {
            return Ok(content);
        }
        if self.keeps_encrypted {
            // A generator takes its files as they are.
            let kept = (style == Style::Lines).then(|| sops::keep_encrypted(&content, file)).flatten();
            return Ok(kept.unwrap_or(content));
        }
        // Other keys may give another result from here on, even where these fail.
        self.reader.depend_on_keys();
        match sops::decrypt(&content, format, file, self.keys, style)? {
            Some(opened) => {
                self.confidential.borrow_mut().extend(&opened.values);
                Ok(opened.content)
            }
            None => Ok(content),
        }
    }
}
