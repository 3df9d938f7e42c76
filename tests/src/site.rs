//! The cluster that scenarios run on.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::DeleteParams;
use kube::runtime::watcher;
use kube::{Api, Client};
use playground::environment;
use playground::join::{self, Joined};
use playground::watch::{self, Check};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::world::built;

/// Names the clusters to run on, separated by commas: `embedded` (the default), `control-plane`, `kubeconfig`.
pub const VARIABLE: &str = "TEST_CLUSTER";
/// Where Services of the control plane get their addresses, beside those of [`join::PODS`].
const SERVICES: &str = "198.19.0.0/16";
/// A control plane takes about ten seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// How long namespaces may take to go.
const LEAVING: Duration = Duration::from_secs(120);

/// A kind of cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The playground's, one for each scenario.
    Embedded,
    /// A real control plane, started for the suite, with the playground's node; see `tests/control-plane`.
    ControlPlane,
    /// What the kubeconfig's current context is, with the playground's node joined to it; whatever the suite makes there
    /// is in namespaces of its own, and is taken away again.
    Kubeconfig,
}

impl Kind {
    /// The clusters that `TEST_CLUSTER` names.
    ///
    /// # Errors
    ///
    /// When it names one that there is not.
    pub fn chosen() -> anyhow::Result<Vec<Self>> {
        match std::env::var(VARIABLE) {
            Ok(names) if !names.trim().is_empty() => {
                names.split(',').map(|name| name.trim().parse()).collect()
            }
            _ => Ok(vec![Self::Embedded]),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Embedded => "embedded",
            Self::ControlPlane => "control-plane",
            Self::Kubeconfig => "kubeconfig",
        })
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        [Self::Embedded, Self::ControlPlane, Self::Kubeconfig]
            .into_iter()
            .find(|kind| kind.to_string() == name)
            .with_context(|| {
                format!("{VARIABLE} names {name:?}: give embedded, control-plane or kubeconfig, or several with commas")
            })
    }
}

/// A cluster that all scenarios share.
#[derive(Debug)]
pub struct Shared {
    kubeconfig: PathBuf,
    joined: Joined,
    /// Ends when its standard input closes.
    control_plane: Option<Child>,
    /// Whether the custom resource was not there before.
    installed: bool,
    /// What the names of this run's namespaces have in common, and the number of worlds so far.
    run: String,
    worlds: AtomicU32,
    _folder: TempDir,
}

impl Shared {
    /// Brings the cluster up, or finds it, and joins the node to it.
    ///
    /// # Errors
    ///
    /// When there is none, or it refuses what the suite needs.
    pub async fn open(kind: Kind) -> anyhow::Result<Self> {
        let programs = tokio::task::spawn_blocking(built).await??;
        let folder = tempfile::tempdir()?;
        let (kubeconfig, control_plane) = match kind {
            Kind::Embedded => bail!("every scenario has an embedded cluster of its own"),
            Kind::ControlPlane => {
                let (path, child) = control_plane(folder.path()).await?;
                (path, Some(child))
            }
            Kind::Kubeconfig => (current()?, None),
        };
        let client = join::client(&kubeconfig).await?;
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        let installed = definitions.get_opt(CRD).await.context("the cluster does not answer")?.is_none();
        environment::define(&client).await?;
        let joined = Joined::start(&kubeconfig, folder.path(), &programs).await?;
        let (run, worlds) = (format!("e2e-{:06x}", random() & 0x00ff_ffff), AtomicU32::new(0));
        Ok(Self { kubeconfig, joined, control_plane, installed, run, worlds, _folder: folder })
    }

    /// The kubeconfig file.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Where the scenarios' Ingresses answer, each for a host of its own.
    pub fn ingress_url(&self) -> &str {
        self.joined.ingress_url()
    }

    /// A name that no other world has, of this run or of another.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.run, self.worlds.fetch_add(1, Ordering::Relaxed))
    }

    /// Waits until nothing is left of the worlds: their pods and volumes need the node to go.
    async fn cleared(&self, client: &Client) -> anyhow::Result<()> {
        let is_ours = |name: Option<&str>| name.is_some_and(|name| name.contains(&self.run));
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let everything = watcher::Config::default;
        watch::until(&namespaces, everything(), "the scenarios' namespaces to be gone", LEAVING, |all| {
            let left: Vec<&String> = all.keys().filter(|name| is_ours(Some(name))).collect();
            if left.is_empty() { Check::Met(()) } else { Check::Not(format!("{left:?}")) }
        })
        .await?;
        let volumes: Api<PersistentVolume> = Api::all(client.clone());
        watch::until(&volumes, everything(), "the scenarios' volumes to be gone", LEAVING, |all| {
            let claimed = |volume: &PersistentVolume| {
                let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
                is_ours(claim.and_then(|claim| claim.namespace.as_deref()))
            };
            let left: Vec<_> =
                all.iter().filter(|(_, volume)| claimed(volume)).map(|(name, _)| name).collect();
            if left.is_empty() { Check::Met(()) } else { Check::Not(format!("{left:?}")) }
        })
        .await?;
        Ok(())
    }

    /// Takes away what the suite has brought.
    ///
    /// # Errors
    ///
    /// When the cluster refuses that.
    pub async fn close(self) -> anyhow::Result<()> {
        let client = join::client(&self.kubeconfig).await?;
        let cleared = self.cleared(&client).await;
        self.joined.leave().await?;
        if self.installed {
            let definitions: Api<CustomResourceDefinition> = Api::all(client);
            definitions.delete(CRD, &DeleteParams::default()).await?;
        }
        if let Some(mut child) = self.control_plane {
            drop(child.stdin.take());
            child.wait().await?;
        }
        cleared
    }
}

fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// The custom resource.
const CRD: &str = "environments.holdfast.dev";

/// The kubeconfig file that kubectl would use.
fn current() -> anyhow::Result<PathBuf> {
    let named = std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = || std::env::home_dir().map(|home| home.join(".kube/config"));
    let path = named.or_else(home).context("there is no home folder, and KUBECONFIG names no file")?;
    anyhow::ensure!(path.is_file(), "{} is not there: set KUBECONFIG", path.display());
    Ok(path)
}

/// Starts `tests/control-plane/run.sh`, and returns its kubeconfig.
async fn control_plane(folder: &Path) -> anyhow::Result<(PathBuf, Child)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("control-plane/run.sh");
    let data = folder.join("control-plane");
    std::fs::create_dir(&data)?;
    let log = data.join("run.log");
    let mut child = Command::new(&script)
        .arg("--until-stdin-closes")
        .arg("--data")
        .arg(&data)
        .args(["--services", SERVICES])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log)?)
        .spawn()
        .with_context(|| format!("{} cannot be started", script.display()))?;
    let output = child.stdout.take().context("no standard output")?;
    let mut lines = BufReader::new(output).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
    match line {
        Ok(Ok(Some(path))) => Ok((path.into(), child)),
        _ => bail!("the control plane does not start:\n{}", playground::agent_process::tail(&log, 20)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_named_as_they_are_printed() {
        for kind in [Kind::Embedded, Kind::ControlPlane, Kind::Kubeconfig] {
            assert_eq!(kind.to_string().parse::<Kind>().unwrap(), kind);
        }
        let error = "minikube".parse::<Kind>().unwrap_err().to_string();
        assert!(error.contains("minikube") && error.contains("control-plane"), "{error}");
    }
}
