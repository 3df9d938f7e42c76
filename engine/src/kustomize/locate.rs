//! Where the entries of a kustomization lead.

use super::error::RenderError;
use super::fields::Located;
use super::kustomization::{FILE_NAMES, Kustomization};
use super::render::Renderer;
use super::resource::Source;
use super::tree::{EntryKind, join};

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
        let nested = Kustomization::read(&self.reader.text(&file)?, &file)?;
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

    pub(super) fn load(&self, directory: &str, path: &str, at: &Source) -> Result<Vec<u8>, RenderError> {
        let file = self.find(directory, &Located { text: path.to_owned(), source: at.clone() })?;
        self.reader.bytes(&file)
    }
}
