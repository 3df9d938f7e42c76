//! The programs that the demonstration runs as processes: `holdfast` (the agent) and `shop` (the shop).
//!
//! They are built by Cargo into the folder of the running program, in its profile, so that one build
//! serves all.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The programs and where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// The agent.
    pub holdfast: PathBuf,
    /// The shop.
    pub shop: PathBuf,
    /// Whether Cargo had to be asked.
    pub built: bool,
}

/// Why there are no programs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The place of the running program is unknown.
    #[error("cannot find out where this program is: {0}")]
    CurrentExe(#[source] io::Error),
    /// Cargo cannot be started.
    #[error(
        "`holdfast` and `shop` are not in {}, and {} cannot be started to build them: {source}. \
         Install Rust, or put the programs there",
        folder.display(),
        cargo.to_string_lossy()
    )]
    NoCargo {
        /// Where the programs were looked for.
        folder: PathBuf,
        /// The Cargo that was tried.
        cargo: OsString,
        /// Why it did not start.
        source: io::Error,
    },
    /// Cargo ran and failed; what it said is above.
    #[error("`{command}` failed; its messages are above")]
    Build {
        /// What was run.
        command: String,
    },
    /// Cargo ran, succeeded and did not name the program.
    #[error("`{command}` did not say where it put {program}")]
    Missing {
        /// What was run.
        command: String,
        /// Which program.
        program: &'static str,
    },
}

/// Which part of the workspace decides on the features of shared dependencies. Cargo unifies features over
/// the packages that one command selects: selecting what built the running program means that nothing is
/// compiled a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// As `cargo run -p playground` does.
    Playground,
    /// As `cargo test --workspace` does.
    Workspace,
}

impl Selection {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Playground => &["-p", "playground", "-p", "agent", "-p", "webservice"],
            Self::Workspace => &["--workspace"],
        }
    }
}

/// Finds or builds the programs.
///
/// Under `cargo run` and `cargo test`, Cargo is asked each time, since only it knows whether the programs
/// are older than their sources; that takes a fraction of a second. Started by hand, programs that lie
/// beside the running one are taken as they are. The build blocks the calling thread.
///
/// # Errors
///
/// When there are none and Cargo cannot make them.
pub fn ensure(selection: Selection) -> Result<Programs, Error> {
    let executable = env::current_exe().map_err(Error::CurrentExe)?;
    let folder = folder_of(&executable);
    let beside = |name: &str| {
        Some(folder.join(format!("{name}{}", env::consts::EXE_SUFFIX))).filter(|path| path.is_file())
    };
    let under_cargo = env::var_os("CARGO");
    if under_cargo.is_none()
        && let (Some(holdfast), Some(shop)) = (beside("holdfast"), beside("shop"))
    {
        return Ok(Programs { holdfast, shop, built: false });
    }
    build(under_cargo.unwrap_or_else(|| "cargo".into()), &folder, selection)
}

/// The folder where Cargo puts programs: tests are one deeper, in `deps`.
fn folder_of(executable: &Path) -> PathBuf {
    let folder = executable.parent().unwrap_or(Path::new("."));
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    folder.to_owned()
}

fn build(cargo: OsString, folder: &Path, selection: Selection) -> Result<Programs, Error> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let mut command = Command::new(&cargo);
    command.current_dir(workspace).args(["build", "--bins", "--message-format=json-render-diagnostics"]);
    command.args(selection.arguments());
    // `debug` and `release` are the folders of the profiles `dev` and `release`; others bear their names.
    let profile = folder.file_name().and_then(|name| name.to_str()).unwrap_or("debug");
    command.args(["--profile", if profile == "debug" { "dev" } else { profile }]);
    if let Some(target) = folder.parent() {
        command.arg("--target-dir").arg(target);
    }
    // What Cargo tells a program about its own package must not reach build scripts of other packages:
    // some are run again when it changes.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "CARGO_BIN_NAME" {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let said = describe(&command);
    let output =
        command.output().map_err(|source| Error::NoCargo { folder: folder.to_owned(), cargo, source })?;
    if !output.status.success() {
        return Err(Error::Build { command: said });
    }
    let executables = executables(&output.stdout);
    let find = |program: &'static str| {
        executables.get(program).cloned().ok_or_else(|| Error::Missing { command: said.clone(), program })
    };
    Ok(Programs { holdfast: find("holdfast")?, shop: find("shop")?, built: true })
}

/// Reads from Cargo's messages where it put each program
/// (<https://doc.rust-lang.org/cargo/reference/external-tools.html#artifact-messages>).
fn executables(messages: &[u8]) -> BTreeMap<String, PathBuf> {
    messages
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter_map(|message| {
            let name = message["target"]["name"].as_str()?.to_owned();
            Some((name, PathBuf::from(message["executable"].as_str()?)))
        })
        .collect()
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_read_from_cargos_messages() {
        let messages = br#"{"reason":"compiler-artifact","target":{"name":"engine"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"shop"},"executable":"/t/release/shop"}
not json
{"reason":"build-finished","success":true}
"#;
        assert_eq!(
            executables(messages),
            BTreeMap::from([("shop".to_owned(), PathBuf::from("/t/release/shop"))])
        );
    }

    #[test]
    fn tests_look_one_folder_up() {
        assert_eq!(folder_of(Path::new("/t/debug/deps/scenario-1")), Path::new("/t/debug"));
        assert_eq!(folder_of(Path::new("/t/release/playground")), Path::new("/t/release"));
    }
}
