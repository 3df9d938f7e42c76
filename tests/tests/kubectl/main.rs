//! A stock kubectl against a cluster: every verb that people use, and what it says.
//!
//! The cluster is an embedded one, or that of `KUBECTL_SUITE_KUBECONFIG`. The scripts say what a real API server (1.36) with
//! its controllers says; `tests/control-plane/run.sh` starts one:
//!
//! ```text
//! tests/control-plane/run.sh                       # prints the path of a kubeconfig and goes on
//! KUBECTL_SUITE_KUBECONFIG=THAT cargo test -p tests --test kubectl
//! ```
//!
//! What needs pods that run is left out there, for it has no node.

// A test that meets something unexpected stops there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod harness;
mod pods;
mod script;
mod streams;

use std::path::{Path, PathBuf};

use harness::{Ground, Shell};

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubectl/scripts")
}

/// The scripts say what kubectl says since then.
const OLDEST: u32 = 36;

/// Runs the suite's scripts on a cluster, each in a namespace that begins with `prefix`. Returns what failed.
async fn run_scripts(kubeconfig: &Path, prefix: &str) -> anyhow::Result<Vec<String>> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(scripts())?.flatten().map(|entry| entry.path()).collect();
    names.sort();
    let mut failed = Vec::new();
    for path in names {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().replace('_', "-");
        let Some(shell) = Shell::open(kubeconfig, &format!("{prefix}-{name}")).await? else {
            tests::skipped("kubectl", "no kubectl on PATH");
            return Ok(Vec::new());
        };
        let version = shell.version().await?;
        if version < OLDEST {
            let why = format!("kubectl is 1.{version}; the scripts are for 1.{OLDEST} and newer");
            tests::skipped("kubectl's words", &why);
            return Ok(Vec::new());
        }
        if let Err(error) = shell.run(&path).await {
            failed.push(format!("{error:#}"));
        }
        shell.expect("command \"$KUBECTL\" delete namespace $NAMESPACE --wait=false").await?;
    }
    Ok(failed)
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_says_what_it_says_of_a_real_cluster() -> anyhow::Result<()> {
    let ground = Ground::start().await?;
    // The namespaces of a run on somebody's cluster do not meet those of the run before, which may still be going.
    let prefix = format!("suite{}", std::process::id());
    let failed = run_scripts(ground.kubeconfig(), &prefix).await?;
    ground.stop().await;
    anyhow::ensure!(failed.is_empty(), "{}", failed.join("\n\n"));
    Ok(())
}
