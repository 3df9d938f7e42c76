//! A world of its own for each scenario.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use agent::api::{Environment, annotation};
use anyhow::Context;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use playground::agent_process::{self, AgentProcess, SlackTarget};
use playground::cluster::Cluster;
use playground::join;
use playground::programs::{self, Programs, Selection};
use playground::repository::Repository;
use playground::slack::Slack;
use playground::traffic::{self, Traffic};
use playground::watch::{self, Check};
use playground::{environment, shop};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Kubectl, Log, Shared};

/// The limit for what takes well under a second on an idle machine: tests share two cores with each other.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a world is to be.
#[derive(Debug, Clone)]
pub enum Site {
    /// In an embedded cluster of its own.
    Own,
    /// In namespaces of its own of a cluster that it shares.
    Shared(Arc<Shared>),
}

/// What differs between worlds.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Further arguments of the agent.
    pub agent: Vec<String>,
}

/// A cluster, a repository, a Slack and an agent. Dropping it ends them all.
#[derive(Debug)]
pub struct World {
    agent: Option<AgentProcess>,
    stopped: Option<agent_process::Settings>,
    /// The team's repository.
    pub repository: Repository,
    /// The local Slack.
    pub slack: Slack,
    /// The cluster, unless it is shared.
    own: Option<Cluster>,
    place: Place,
    folder: TempDir,
}

/// Where in which cluster a world is.
struct Place {
    client: Client,
    kubeconfig: PathBuf,
    ingress_url: String,
    /// What its namespaces end with, and the host of its Ingress, in a cluster that it shares with others.
    id: Option<String>,
}

/// An overlay for shared clusters: pods, volumes and Ingresses find the playground's node, and nobody else's.
const OVERLAY: &str = "environments/shared";

impl World {
    /// A world whose repository holds the shop's environments and policies.
    ///
    /// # Errors
    ///
    /// When something does not start.
    pub async fn with_shop(site: &Site) -> anyhow::Result<Self> {
        Self::start(site, Options::default(), |folder, place| {
            let checkout = playground::state::checkout(Path::new(env!("CARGO_MANIFEST_DIR")))?;
            let repository = Repository::seed(&checkout, &folder.join("shop.git"), &folder.join("shop"))?;
            if let Some(id) = &place.id {
                let overlay = overlay(&place.namespace(shop::NAMESPACE), &format!("{id}.test"));
                repository.write(&format!("{OVERLAY}/kustomization.yaml"), &overlay)?;
                repository.commit_and_push("Share a cluster")?;
            }
            Ok(repository)
        })
        .await
    }

    /// A world whose repository holds one small environment in each of `folders`.
    ///
    /// # Errors
    ///
    /// When something does not start.
    pub async fn with_folders(site: &Site, folders: &[&str], options: Options) -> anyhow::Result<Self> {
        Self::start(site, options, |folder, place| {
            let repository = Repository::empty(&folder.join("shop.git"), &folder.join("shop"))?;
            for name in folders {
                repository
                    .write(&format!("{name}/config.yaml"), &config(name, &place.namespace(name), "1"))?;
            }
            repository.commit_and_push("Begin")?;
            Ok(repository)
        })
        .await
    }

    async fn start(
        site: &Site,
        options: Options,
        repository: impl FnOnce(&Path, &Place) -> anyhow::Result<Repository>,
    ) -> anyhow::Result<Self> {
        let programs = built()?;
        let folder = tempfile::tempdir()?;
        let (own, place) = match site {
            Site::Own => {
                let cluster = Cluster::start(folder.path(), &programs).await?;
                environment::define(cluster.client()).await?;
                let place = Place {
                    client: cluster.client().clone(),
                    kubeconfig: cluster.kubeconfig().to_owned(),
                    ingress_url: cluster.ingress_url().to_owned(),
                    id: None,
                };
                (Some(cluster), place)
            }
            Site::Shared(shared) => {
                let place = Place {
                    client: playground::join::client(shared.kubeconfig()).await?,
                    kubeconfig: shared.kubeconfig().to_owned(),
                    ingress_url: shared.ingress_url().to_owned(),
                    id: Some(shared.name()),
                };
                (None, place)
            }
        };
        let system = place.namespace(environment::NAMESPACE);
        environment::namespace(&place.client, &system).await?;
        let repository = repository(folder.path(), &place)?;
        let slack = Slack::start("xoxb-test").await?;
        let settings = agent_process::Settings {
            program: programs.holdfast,
            kubeconfig: place.kubeconfig.clone(),
            data_dir: folder.path().join("agent"),
            log: folder.path().join("agent.log"),
            http: agent_process::free_address()?,
            slack: SlackTarget::Local {
                url: slack.url(),
                token: slack.token().to_owned(),
                channel: "#deploys".to_owned(),
            },
            json_log: true,
            arguments: [
                vec!["--namespace".into(), system.clone(), "--lease-namespace".into(), system],
                options.agent,
            ]
            .concat(),
        };
        let mut world = Self { agent: None, stopped: Some(settings), repository, slack, own, place, folder };
        world.start_agent().await?;
        Ok(world)
    }

    /// A client with all rights.
    pub fn client(&self) -> &Client {
        &self.place.client
    }

    /// The name that a namespace has in this world.
    pub fn namespace(&self, name: &str) -> String {
        self.place.namespace(name)
    }

    /// Customers of the shop who ask from now on.
    ///
    /// # Errors
    ///
    /// When no HTTP client can be made.
    pub fn traffic(&self) -> anyhow::Result<Traffic> {
        self.traffic_at(4, 60)
    }

    /// So many customers at a time, who ask so often in a second together.
    ///
    /// # Errors
    ///
    /// When no HTTP client can be made.
    pub fn traffic_at(&self, workers: usize, rate: u32) -> anyhow::Result<Traffic> {
        let settings = traffic::Settings {
            url: self.place.ingress_url.clone(),
            paths: shop::PATHS.map(str::to_owned).to_vec(),
            host: self.place.id.as_ref().map(|id| format!("{id}.test")),
            workers,
            rate,
        };
        Ok(Traffic::start(&settings)?)
    }

    /// An Environment for the folder `name` of this world's repository.
    pub fn small_environment(&self, name: &str) -> Value {
        json!({
            "apiVersion": "holdfast.dev/v1alpha1",
            "kind": "Environment",
            "metadata": {"name": name, "namespace": self.namespace(environment::NAMESPACE)},
            "spec": {
                "source": {"url": self.repository.url(), "branch": "main", "path": name, "interval": "1s"},
                "notify": [{"slack": {}}],
                "audit": {"branch": format!("audit/{name}")},
            },
        })
    }

    /// A folder of this world.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The agent's log.
    pub fn log(&self) -> Log {
        Log::new(self.folder.path().join("agent.log"))
    }

    /// The stock kubectl for this world's cluster, where there is one.
    pub fn kubectl(&self) -> Option<Kubectl> {
        Kubectl::find(&self.place.kubeconfig, &self.folder.path().join("kubectl-cache"))
    }

    /// Starts the agent that was killed, or the first one.
    ///
    /// # Errors
    ///
    /// When one runs, or it does not become ready.
    pub async fn start_agent(&mut self) -> anyhow::Result<()> {
        let settings = self.stopped.take().context("the agent runs already")?;
        let mut agent = AgentProcess::spawn(settings)?;
        agent.ready(PATIENCE).await.with_context(|| self.newest_log())?;
        self.agent = Some(agent);
        Ok(())
    }

    /// Kills the agent as `kill -9` does.
    ///
    /// # Errors
    ///
    /// When none runs.
    pub async fn kill_agent(&mut self) -> anyhow::Result<()> {
        let agent = self.agent.take().context("no agent runs")?;
        self.stopped = Some(agent.kill().await?);
        Ok(())
    }

    /// Address of the agent's web page, metrics and probes.
    ///
    /// # Errors
    ///
    /// When none runs.
    pub fn agent_url(&self) -> anyhow::Result<String> {
        Ok(self.agent.as_ref().context("no agent runs")?.url())
    }

    /// Ends everything in order. Without it, dropping the world ends everything at once.
    pub async fn stop(mut self) {
        if let Some(agent) = self.agent.take() {
            // What cannot be stopped is killed when it is dropped.
            let _ = agent.stop().await;
        }
        if let Some(cluster) = self.own.take() {
            cluster.stop().await;
        }
    }

    /// Applies the shop's environment `dev`, with gates that decide within a few seconds and `change` made to it.
    ///
    /// # Errors
    ///
    /// When the API server refuses it.
    pub async fn apply_dev(&self, change: impl FnOnce(&mut Value)) -> anyhow::Result<Environment> {
        let mut object = environment::read(&self.repository.read(shop::ENVIRONMENT)?, shop::ENVIRONMENT)?;
        environment::redirect(&mut object, &self.repository.url());
        object["metadata"]["namespace"] = json!(self.namespace(environment::NAMESPACE));
        if self.place.id.is_some() {
            object["spec"]["source"]["path"] = json!(OVERLAY);
        }
        if let Some(gates) = object["spec"]["rollout"]["gates"].as_array_mut() {
            for gate in gates {
                gate["interval"] = json!("1s");
                gate["warmup"] = json!("0s");
                gate["duration"] = json!("4s");
            }
        }
        change(&mut object);
        Ok(environment::apply(self.client(), &object).await?)
    }

    /// Deploys the shop and waits until `dev` is Ready; customers buy from then on.
    ///
    /// # Errors
    ///
    /// When that does not happen in time.
    pub async fn deploy_shop(&self) -> anyhow::Result<Traffic> {
        self.apply_dev(|_| ()).await?;
        // The gates of the first deploy need requests to judge, so customers knock from the beginning; what
        // they see before the first pod is ready is nobody's fault and not in a scenario's difference.
        let traffic = self.traffic()?;
        self.until_ready(shop::NAME, &self.repository.tip()?.id).await?;
        Ok(traffic)
    }

    /// Environments of the agent's namespace.
    pub fn environments(&self) -> Api<Environment> {
        Api::namespaced(self.client().clone(), &self.namespace(environment::NAMESPACE))
    }

    /// Waits until an Environment meets `check`, which describes what it saw otherwise.
    ///
    /// # Errors
    ///
    /// At the deadline, with what was seen and the agent's newest log lines.
    pub async fn until<T>(
        &self,
        name: &str,
        expected: &str,
        check: impl FnMut(Option<&Environment>) -> Check<T>,
    ) -> anyhow::Result<T> {
        watch::until_one(&self.environments(), name, expected, PATIENCE, check)
            .await
            .with_context(|| self.newest_log())
    }

    /// Waits until an Environment is Ready at a commit.
    ///
    /// # Errors
    ///
    /// At the deadline.
    pub async fn until_ready(&self, name: &str, commit: &str) -> anyhow::Result<()> {
        self.until(name, &format!("Environment {name} Ready at {commit}"), |seen| {
            if environment::ready_at(seen, commit) {
                Check::Met(())
            } else {
                Check::Not(environment::described(seen))
            }
        })
        .await
    }

    /// Waits until an Environment is Ready, its source too, at whatever commit: for a commit that changes
    /// nothing, the one that serves keeps its name.
    ///
    /// # Errors
    ///
    /// At the deadline.
    pub async fn until_well(&self, name: &str) -> anyhow::Result<()> {
        self.until(name, &format!("Environment {name} Ready with its source"), |seen| {
            let is = |kind: &str| {
                let condition = seen.and_then(|environment| environment.status.as_ref()?.condition(kind));
                condition.is_some_and(|condition| condition.status == "True")
            };
            if is("Ready") && is("SourceReady") {
                Check::Met(())
            } else {
                Check::Not(environment::described(seen))
            }
        })
        .await
    }

    /// Asks for a look at the source now, as `holdfast sync` does, and waits until it was taken.
    ///
    /// # Errors
    ///
    /// At the deadline.
    pub async fn sync(&self, name: &str) -> anyhow::Result<()> {
        let asked = format!("{:?}", std::time::SystemTime::now());
        let annotation = json!({"metadata": {"annotations": {annotation::RECONCILE: asked}}});
        self.environments().patch(name, &PatchParams::default(), &Patch::Merge(annotation)).await?;
        self.until(name, &format!("Environment {name} to look at its source"), |seen| {
            let status = seen.and_then(|environment| environment.status.as_ref());
            match status.and_then(|status| status.last_handled_reconcile_at.as_deref()) {
                Some(handled) if handled == asked => Check::Met(()),
                handled => Check::Not(format!("{handled:?}")),
            }
        })
        .await
    }

    /// Waits until an Environment is in a phase.
    ///
    /// # Errors
    ///
    /// At the deadline.
    pub async fn until_phase(&self, name: &str, phase: &str) -> anyhow::Result<()> {
        self.until(name, &format!("Environment {name} in phase {phase}"), |seen| {
            let now = seen.and_then(|environment| environment.status.as_ref()?.phase.as_deref());
            if now == Some(phase) { Check::Met(()) } else { Check::Not(environment::described(seen)) }
        })
        .await
    }

    /// Waits until a condition of an Environment, or its one-line message, holds all of `words`, and returns
    /// that message.
    ///
    /// # Errors
    ///
    /// At the deadline.
    pub async fn until_told(&self, name: &str, words: &[&str]) -> anyhow::Result<String> {
        self.until(name, &format!("Environment {name} to say {words:?}"), |seen| {
            let told =
                environment::message_where(seen, |message| words.iter().all(|word| message.contains(word)));
            told.map_or_else(|| Check::Not(environment::described(seen)), Check::Met)
        })
        .await
    }

    /// Waits for a Kubernetes event about an Environment whose note holds all of `words`.
    ///
    /// # Errors
    ///
    /// At the deadline.
    pub async fn until_event(&self, name: &str, words: &[&str]) -> anyhow::Result<Event> {
        let events: Api<Event> =
            Api::namespaced(self.client().clone(), &self.namespace(environment::NAMESPACE));
        let about = |event: &Event| event.regarding.as_ref().and_then(|of| of.name.as_deref()) == Some(name);
        let expected = format!("an event about {name} with {words:?}");
        watch::until(&events, kube::runtime::watcher::Config::default(), expected, PATIENCE, |events| {
            let notes = || events.values().filter(|event| about(event));
            let found = notes().find(|event| {
                let note = event.note.as_deref().unwrap_or_default();
                words.iter().all(|word| note.contains(word))
            });
            match found {
                Some(event) => Check::Met(event.clone()),
                None => Check::Not(format!(
                    "{:?}",
                    notes().filter_map(|event| event.note.as_deref()).collect::<Vec<_>>()
                )),
            }
        })
        .await
        .with_context(|| self.newest_log())
    }

    /// The engine's state of an Environment.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub async fn rollout(&self, name: &str) -> anyhow::Result<engine::rollout::Rollout> {
        let status = self.environments().get(name).await?.status.context("no status")?;
        status.rollout()?.context("no rollout")
    }

    /// Makes the shop's next version in the clone, with `edit` on top, pushes it, and returns the version and
    /// the commit.
    ///
    /// # Errors
    ///
    /// When the repository refuses.
    pub fn release(
        &self,
        edit: impl FnOnce(String) -> Result<String, String>,
    ) -> anyhow::Result<(String, playground::repository::Commit)> {
        let now = self.repository.read(shop::KUSTOMIZATION)?;
        let version =
            shop::version(&now).and_then(shop::next_version).context("no version in the kustomization")?;
        self.repository.edit(shop::KUSTOMIZATION, |text| edit(shop::with_version(text, &version)?))?;
        let commit = self.repository.commit_and_push(&format!("Release {version}"))?;
        Ok((version, commit))
    }

    /// The newest lines of the agent's log, for a failed expectation.
    pub fn newest_log(&self) -> String {
        let path: PathBuf = self.folder.path().join("agent.log");
        format!("the agent's log ends with\n{}", agent_process::tail(&path, 25))
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kubeconfig, ingress_url, id, .. } = self;
        f.debug_struct("Place")
            .field("kubeconfig", kubeconfig)
            .field("ingress_url", ingress_url)
            .field("id", id)
            .finish()
    }
}

impl Place {
    fn namespace(&self, name: &str) -> String {
        match &self.id {
            Some(id) => format!("{name}-{id}"),
            None => name.to_owned(),
        }
    }
}

impl Drop for World {
    /// A shared cluster keeps nothing of this world, however it ends.
    fn drop(&mut self) {
        // Before what it would put back is deleted.
        drop(self.agent.take());
        let Some(id) = self.place.id.clone() else { return };
        let kubeconfig = self.place.kubeconfig.clone();
        let clean = std::thread::spawn(move || -> anyhow::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(forget(&kubeconfig, &id))
        });
        match clean.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("a scenario's namespaces stay behind: {error:#}"),
            Err(_) => eprintln!("a scenario's namespaces stay behind"),
        }
    }
}

/// Deletes the namespaces of a world.
async fn forget(kubeconfig: &Path, id: &str) -> anyhow::Result<()> {
    let client = playground::join::client(kubeconfig).await?;
    let namespaces: Api<Namespace> = Api::all(client);
    for namespace in namespaces.list_metadata(&ListParams::default()).await? {
        let name = namespace.metadata.name.unwrap_or_default();
        if name.ends_with(&format!("-{id}")) {
            namespaces.delete(&name, &DeleteParams::default()).await?;
        }
    }
    Ok(())
}

/// The programs, built once per test program.
pub(crate) fn built() -> anyhow::Result<Programs> {
    static PROGRAMS: OnceLock<Result<Programs, String>> = OnceLock::new();
    let programs =
        PROGRAMS.get_or_init(|| programs::ensure(Selection::Workspace).map_err(|error| error.to_string()));
    programs.clone().map_err(anyhow::Error::msg)
}

/// A small environment's only object beside its namespace: a ConfigMap `name`.
fn config(name: &str, namespace: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {namespace}\n---\napiVersion: v1\nkind: ConfigMap\n\
         metadata:\n  name: {name}\n  namespace: {namespace}\ndata:\n  value: \"{value}\"\n"
    )
}

/// The shop's environment `dev` for a shared cluster.
fn overlay(namespace: &str, host: &str) -> String {
    let (class, label, value) = (join::CLASS, join::LABEL, join::VALUE);
    format!(
        r#"apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: {namespace}
resources:
  - ../dev
patches:
  - target: {{kind: Deployment}}
    patch: |-
      apiVersion: apps/v1
      kind: Deployment
      metadata: {{name: any}}
      spec:
        template:
          spec:
            nodeSelector: {{{label}: {value}}}
            tolerations: [{{key: {label}, value: {value}, effect: NoSchedule}}]
  - target: {{kind: PersistentVolumeClaim}}
    patch: |-
      - {{op: add, path: /spec/storageClassName, value: {class}}}
  - target: {{kind: Ingress}}
    patch: |-
      - {{op: add, path: /spec/ingressClassName, value: {class}}}
      - {{op: add, path: /spec/rules/0/host, value: {host}}}
"#
    )
}

/// Time since `begin` in words, for tests that print what they measured.
pub fn took(begin: Instant) -> String {
    playground::print::seconds(begin.elapsed()).trim().to_owned()
}
