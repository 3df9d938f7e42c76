//! A world of its own for each scenario.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use agent::api::{Environment, annotation};
use anyhow::Context;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use playground::agent_process::{self, AgentProcess, SlackTarget};
use playground::cluster::Cluster;
use playground::programs::{self, Programs, Selection};
use playground::repository::Repository;
use playground::slack::Slack;
use playground::traffic::{self, Traffic};
use playground::watch::{self, Check};
use playground::{environment, shop};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Kubectl, Log};

/// The limit for what takes well under a second on an idle machine: tests share two cores with each other.
const PATIENCE: Duration = Duration::from_secs(60);

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
    /// The embedded cluster.
    pub cluster: Cluster,
    folder: TempDir,
}

impl World {
    /// A world whose repository holds the shop's environments and policies.
    ///
    /// # Errors
    ///
    /// When something does not start.
    pub async fn with_shop() -> anyhow::Result<Self> {
        Self::start(Options::default(), |folder| {
            let checkout = playground::state::checkout(Path::new(env!("CARGO_MANIFEST_DIR")))?;
            Ok(Repository::seed(&checkout, &folder.join("shop.git"), &folder.join("shop"))?)
        })
        .await
    }

    /// A world whose repository holds one small environment in each of `folders`.
    ///
    /// # Errors
    ///
    /// When something does not start.
    pub async fn with_folders(folders: &[&str], options: Options) -> anyhow::Result<Self> {
        Self::start(options, |folder| {
            let repository = Repository::empty(&folder.join("shop.git"), &folder.join("shop"))?;
            for name in folders {
                repository.write(&format!("{name}/config.yaml"), &config(name, "1"))?;
            }
            repository.commit_and_push("Begin")?;
            Ok(repository)
        })
        .await
    }

    async fn start(
        options: Options,
        repository: impl FnOnce(&Path) -> anyhow::Result<Repository>,
    ) -> anyhow::Result<Self> {
        let programs = built()?;
        let folder = tempfile::tempdir()?;
        let cluster = Cluster::start(folder.path(), &programs).await?;
        environment::install(cluster.client()).await?;
        let repository = repository(folder.path())?;
        let slack = Slack::start("xoxb-test").await?;
        let settings = agent_process::Settings {
            program: programs.holdfast,
            kubeconfig: cluster.kubeconfig().to_owned(),
            data_dir: folder.path().join("agent"),
            log: folder.path().join("agent.log"),
            http: agent_process::free_address()?,
            slack: SlackTarget::Local {
                url: slack.url(),
                token: slack.token().to_owned(),
                channel: "#deploys".to_owned(),
            },
            json_log: true,
            arguments: options.agent,
        };
        let mut world = Self { agent: None, stopped: Some(settings), repository, slack, cluster, folder };
        world.start_agent().await?;
        Ok(world)
    }

    /// A client with all rights.
    pub fn client(&self) -> &Client {
        self.cluster.client()
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
        Kubectl::find(self.cluster.kubeconfig(), &self.folder.path().join("kubectl-cache"))
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
        self.cluster.stop().await;
    }

    /// Applies the shop's environment `dev`, with gates that decide within a few seconds and `change` made to it.
    ///
    /// # Errors
    ///
    /// When the API server refuses it.
    pub async fn apply_dev(&self, change: impl FnOnce(&mut Value)) -> anyhow::Result<Environment> {
        let mut object = environment::read(&self.repository.read(shop::ENVIRONMENT)?, shop::ENVIRONMENT)?;
        environment::redirect(&mut object, &self.repository.url());
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
        let settings = traffic::Settings {
            url: self.cluster.ingress_url().to_owned(),
            paths: shop::PATHS.map(str::to_owned).to_vec(),
            host: None,
            workers: 4,
            rate: 60,
        };
        let traffic = Traffic::start(&settings)?;
        self.until_ready(shop::NAME, &self.repository.tip()?.id).await?;
        Ok(traffic)
    }

    /// Environments of the agent's namespace.
    pub fn environments(&self) -> Api<Environment> {
        Api::namespaced(self.client().clone(), environment::NAMESPACE)
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
        let events: Api<Event> = Api::namespaced(self.client().clone(), environment::NAMESPACE);
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

/// The programs, built once per test program.
fn built() -> anyhow::Result<Programs> {
    static PROGRAMS: OnceLock<Result<Programs, String>> = OnceLock::new();
    let programs =
        PROGRAMS.get_or_init(|| programs::ensure(Selection::Workspace).map_err(|error| error.to_string()));
    programs.clone().map_err(anyhow::Error::msg)
}

/// A small environment's only object: a ConfigMap `name` in a namespace of the same name.
pub(crate) fn config(name: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n---\napiVersion: v1\nkind: ConfigMap\n\
         metadata:\n  name: {name}\n  namespace: {name}\ndata:\n  value: \"{value}\"\n"
    )
}

/// An Environment for the folder `name` of the repository at `url`.
pub fn small_environment(name: &str, url: &str) -> Value {
    json!({
        "apiVersion": "holdfast.dev/v1alpha1",
        "kind": "Environment",
        "metadata": {"name": name, "namespace": environment::NAMESPACE},
        "spec": {
            "source": {"url": url, "branch": "main", "path": name, "interval": "1s"},
            "notify": [{"slack": {}}],
            "audit": {"branch": format!("audit/{name}")},
        },
    })
}

/// Time since `begin` in words, for tests that print what they measured.
pub fn took(begin: Instant) -> String {
    playground::print::seconds(begin.elapsed()).trim().to_owned()
}
