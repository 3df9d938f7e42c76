//! What the demonstration knows of the shop's manifests: the names in `environments/dev`, and the edits
//! that a team makes there.

use std::path::Path;

use node::{ImageMap, Program};

/// The file in which a version is released.
pub const KUSTOMIZATION: &str = "environments/dev/kustomization.yaml";
/// The Environment object in the repository.
pub const ENVIRONMENT: &str = "environments/fleet/dev.yaml";
/// The environment's name.
pub const NAME: &str = "dev";
/// The namespace that the shop runs in.
pub const NAMESPACE: &str = "dhakacart-dev";
/// The Deployment.
pub const DEPLOYMENT: &str = "dhakacart-backend";
/// Label selector of the Deployment's pods.
pub const SELECTOR: &str = "app=backend";
/// The Service in front of them.
pub const SERVICE: &str = "dhakacart-backend-service";
/// The backend's image without its tag.
pub const IMAGE: &str = "ghcr.io/dhakacart/backend";
/// The frontend's image: the same program, told by its arguments which role it has.
pub const FRONTEND_IMAGE: &str = "ghcr.io/dhakacart/frontend";
/// What customers ask for.
pub const PATHS: [&str; 3] = ["/", "/api/products", "/api/products?limit=5"];

/// The shop's images, and the program that stands for both of them.
pub fn images(program: &Path) -> ImageMap {
    let program = Program::new(program);
    ImageMap::default().with(IMAGE, program.clone()).with(FRONTEND_IMAGE, program)
}

const VERSION: &str = "SHOP_VERSION=";
const TAG: &str = "newTag: ";
const FAULT: &str = "FAULT_ERROR_PERCENT=";

/// The version that a kustomization deploys.
pub fn version(kustomization: &str) -> Option<&str> {
    let (_, after) = kustomization.split_once(VERSION)?;
    after.split_whitespace().next()
}

/// The version after `version`: `v1.2.0` after `v1.1.3`.
pub fn next_version(version: &str) -> Option<String> {
    let mut parts = version.strip_prefix('v')?.split('.');
    let major: u32 = parts.next()?.parse().ok()?;
    let minor: u32 = parts.next()?.parse().ok()?;
    Some(format!("v{major}.{}.0", minor.checked_add(1)?))
}

/// The kustomization with another version: the image's tag and what the pods call themselves.
///
/// # Errors
///
/// A sentence when the file names no version.
pub fn with_version(kustomization: &str, version: &str) -> Result<String, String> {
    let mut seen = (false, false);
    let lines = kustomization.lines().map(|line| {
        if let Some((before, _)) = line.split_once(VERSION).filter(|(before, _)| before.trim() == "-") {
            seen.0 = true;
            format!("{before}{VERSION}{version}")
        } else if let Some((before, _)) = line.split_once(TAG).filter(|(before, _)| before.trim().is_empty())
        {
            seen.1 = true;
            format!("{before}{TAG}{version}")
        } else {
            line.to_owned()
        }
    });
    let text = joined(lines);
    match seen {
        (true, true) => Ok(text),
        _ => Err(format!("there is no `{VERSION}…` and `{TAG}…` in it to change")),
    }
}

/// The kustomization with the shop's fault switch set: this share of requests fails.
///
/// # Errors
///
/// A sentence when the file has no place for it.
pub fn with_fault(kustomization: &str, percent: u8) -> Result<String, String> {
    let clean = without_fault(kustomization);
    let mut placed = false;
    let lines = clean.lines().flat_map(|line| {
        let margin = line.split_once(VERSION).map(|(before, _)| before).filter(|before| before.trim() == "-");
        let fault = margin.map(|margin| format!("{margin}{FAULT}{percent}"));
        placed |= fault.is_some();
        std::iter::once(line.to_owned()).chain(fault)
    });
    let text = joined(lines);
    if placed { Ok(text) } else { Err(format!("there is no `{VERSION}…` in it to stand beside")) }
}

/// The kustomization with the fault switch off.
pub fn without_fault(kustomization: &str) -> String {
    joined(kustomization.lines().filter(|line| !line.contains(FAULT)).map(str::to_owned))
}

/// The kustomization as somebody commits it who did not resolve a merge conflict.
///
/// # Errors
///
/// A sentence when the file names no version.
pub fn with_conflict(kustomization: &str, other: &str) -> Result<String, String> {
    let mut placed = false;
    let lines = kustomization.lines().flat_map(|line| {
        let margin = line.split_once(TAG).map(|(before, _)| before).filter(|before| before.trim().is_empty());
        match margin {
            Some(margin) => {
                placed = true;
                vec![
                    "<<<<<<< HEAD".to_owned(),
                    line.to_owned(),
                    "=======".to_owned(),
                    format!("{margin}{TAG}{other}"),
                    ">>>>>>> feature".to_owned(),
                ]
            }
            None => vec![line.to_owned()],
        }
    });
    let text = joined(lines);
    if placed { Ok(text) } else { Err(format!("there is no `{TAG}…` in it")) }
}

fn joined(lines: impl Iterator<Item = String>) -> String {
    lines.fold(String::new(), |text, line| text + &line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# set SHOP_VERSION\nimages:\n  - name: ghcr.io/dhakacart/backend\n    newTag: v1.0.0\nconfigMapGenerator:\n  - name: a\n    literals:\n      - SHOP_VERSION=v1.0.0\n      - B=2\n";

    #[test]
    fn a_version_is_read_and_changed_in_both_places() {
        assert_eq!(version(FILE), Some("v1.0.0"));
        let next = next_version("v1.0.0").unwrap();
        assert_eq!(next, "v1.1.0");
        let text = with_version(FILE, &next).unwrap();
        assert_eq!(text, FILE.replace("v1.0.0", "v1.1.0"));
        assert!(with_version("images: []\n", "v2").is_err());
    }

    #[test]
    fn a_fault_comes_and_goes() {
        let faulty = with_fault(FILE, 40).unwrap();
        assert!(faulty.contains("      - SHOP_VERSION=v1.0.0\n      - FAULT_ERROR_PERCENT=40\n"), "{faulty}");
        assert_eq!(with_fault(&faulty, 10).unwrap(), faulty.replace("=40", "=10"));
        assert_eq!(without_fault(&faulty), FILE);
    }

    #[test]
    fn a_conflict_keeps_both_sides() {
        let text = with_conflict(FILE, "v9").unwrap();
        assert!(
            text.contains("<<<<<<< HEAD\n    newTag: v1.0.0\n=======\n    newTag: v9\n>>>>>>> feature\n")
        );
    }

    #[test]
    fn the_names_are_those_of_the_manifests() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
        let kustomization = read(KUSTOMIZATION);
        assert!(kustomization.contains(&format!("namespace: {NAMESPACE}")));
        assert!(kustomization.contains(IMAGE) && kustomization.contains(FRONTEND_IMAGE));
        assert!(with_version(&kustomization, "v9.9.9").is_ok() && with_fault(&kustomization, 1).is_ok());
        assert!(next_version(version(&kustomization).unwrap()).is_some());
        assert!(read("environments/base/backend/deployment.yaml").contains(&format!("name: {DEPLOYMENT}")));
        assert!(read("environments/base/backend/service.yaml").contains(&format!("name: {SERVICE}")));
        assert!(read(ENVIRONMENT).contains(&format!("name: {NAME}")));
    }
}
