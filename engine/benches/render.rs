//! What rendering costs, side by side with `kubectl kustomize` as a process where that is found.
//!
//! `cargo bench -p engine --bench render` prints a table. Kustomize's times are for whole processes, as a
//! reconciler that runs it would pay them; ours are for renders in a running one.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "this measures, writes folders for kubectl and runs it"
)]

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use engine::kustomize::{Cache, Entry, EntryKind, Tree, TreeError, render, render_with};
use engine::object::Digest;

/// A tree with ids for everything, as a Git tree has them.
#[derive(Default)]
struct Repository {
    files: BTreeMap<String, String>,
    entries: HashMap<String, Entry>,
    listings: HashMap<String, Vec<(String, EntryKind)>>,
}

impl Repository {
    fn new(files: BTreeMap<String, String>) -> Self {
        let mut repository = Self { files, ..Self::default() };
        let mut listings: HashMap<String, BTreeMap<String, EntryKind>> = HashMap::new();
        let mut contents: HashMap<String, String> = HashMap::new();
        for (path, content) in &repository.files {
            let id = Digest::of_bytes(content.as_bytes()).hex();
            let mut inner = path.as_str();
            let mut kind = EntryKind::File;
            loop {
                let (outer, name) = inner.rsplit_once('/').unwrap_or(("", inner));
                listings.entry(outer.to_owned()).or_default().insert(name.to_owned(), kind);
                let _ = writeln!(contents.entry(outer.to_owned()).or_default(), "{path} {id}");
                if outer.is_empty() {
                    break;
                }
                (inner, kind) = (outer, EntryKind::Directory);
            }
            repository.entries.insert(path.clone(), Entry::new(EntryKind::File, Some(id)));
        }
        for (path, names) in listings {
            let id = Digest::of_bytes(contents[&path].as_bytes()).hex();
            repository.entries.insert(path.clone(), Entry::new(EntryKind::Directory, Some(id)));
            repository.listings.insert(path, names.into_iter().collect());
        }
        repository
    }

    fn with(&self, path: &str, content: &str) -> Self {
        let mut files = self.files.clone();
        files.insert(path.to_owned(), content.to_owned());
        Self::new(files)
    }

    /// Writes the files to a folder, for kubectl.
    fn write(&self, folder: &Path) {
        for (path, content) in &self.files {
            let file = folder.join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, content).unwrap();
        }
    }
}

impl Tree for Repository {
    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        Ok(self.entries.get(path).cloned())
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, TreeError> {
        let content = self.files.get(path).ok_or_else(|| TreeError::new(path, "there is no such file"))?;
        Ok(content.clone().into_bytes())
    }

    fn list(&self, path: &str) -> Result<Vec<(String, EntryKind)>, TreeError> {
        self.listings.get(path).cloned().ok_or_else(|| TreeError::new(path, "there is no such folder"))
    }
}

/// A service of several objects, as shops have them: 5 objects.
fn service(name: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata:
      labels: {{app: {name}}}
    spec:
      serviceAccountName: {name}
      containers:
      - name: {name}
        image: registry.example.com/{name}:1.0.0
        ports:
        - {{name: http, containerPort: 8080}}
        - {{name: metrics, containerPort: 9090}}
        env:
        - {{name: LOG, value: info}}
        - name: PASSWORD
          valueFrom: {{secretKeyRef: {{name: {name}-credentials, key: password}}}}
        envFrom:
        - configMapRef: {{name: settings}}
        readinessProbe: {{httpGet: {{path: /ready, port: http}}}}
        resources:
          requests: {{cpu: 100m, memory: 128Mi}}
          limits: {{memory: 256Mi}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: http, port: 80, targetPort: http}}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: {name}}}
spec:
  minAvailable: 1
  selector: {{matchLabels: {{app: {name}}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: {name}-credentials}}
stringData: {{password: change-me}}
"
    )
}

/// A base of some services and some overlays on it, each as an environment has it.
fn shop(services: usize, overlays: usize) -> Repository {
    let mut files = BTreeMap::new();
    let mut base =
        "configMapGenerator:\n- name: settings\n  literals: [colour=green]\nresources:\n".to_owned();
    for n in 0..services {
        let name = format!("service-{n}");
        let _ = writeln!(base, "- {name}.yaml");
        files.insert(format!("base/{name}.yaml"), service(&name));
    }
    files.insert("base/kustomization.yaml".to_owned(), base);
    for n in 0..overlays {
        let text = format!(
            "resources: [../../base]
namespace: env-{n}
nameSuffix: -e{n}
labels:
- pairs: {{env: e{n}}}
  includeSelectors: true
commonAnnotations: {{owner: team}}
images:
- {{name: registry.example.com/service-0, newTag: 2.{n}.0}}
replicas:
- {{name: service-0, count: 5}}
patches:
- path: more.yaml
- target: {{kind: Deployment, name: service-.*}}
  patch: |-
    - {{op: add, path: /spec/template/spec/containers/0/args, value: [--env=e{n}]}}
"
        );
        files.insert(format!("overlays/e{n}/kustomization.yaml"), text);
        let patch = "apiVersion: apps/v1
kind: Deployment
metadata: {name: service-0}
spec:
  template:
    spec:
      containers:
      - name: service-0
        env: [{name: LOG, value: debug}]
";
        files.insert(format!("overlays/e{n}/more.yaml"), patch.to_owned());
    }
    Repository::new(files)
}

/// The middle of the times of some runs.
fn median(runs: usize, mut run: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

/// How long `kubectl kustomize` takes for some overlays, one process after the other.
fn kubectl(repository: &Repository, overlays: &[String], runs: usize) -> Option<Duration> {
    Command::new("kubectl").args(["version", "--client"]).output().ok()?;
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("render-bench");
    let _ = std::fs::remove_dir_all(&folder);
    repository.write(&folder);
    let time = median(runs, || {
        for overlay in overlays {
            let output = Command::new("kubectl").arg("kustomize").arg(folder.join(overlay)).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            black_box(output.stdout);
        }
    });
    let _ = std::fs::remove_dir_all(&folder);
    Some(time)
}

fn text(time: Duration) -> String {
    match time.as_nanos() {
        nanos if nanos < 1_000_000 => format!("{:.1} µs", nanos as f64 / 1e3),
        nanos if nanos < 10_000_000_000 => format!("{:.2} ms", nanos as f64 / 1e6),
        nanos => format!("{:.1} s", nanos as f64 / 1e9),
    }
}

fn row(what: &str, ours: Duration, kubectl: Option<Duration>) {
    let (theirs, factor) = match kubectl {
        Some(theirs) => (text(theirs), format!("{:.0}×", theirs.as_secs_f64() / ours.as_secs_f64())),
        None => ("-".to_owned(), "-".to_owned()),
    };
    println!("| {what:<52} | {:>11} | {theirs:>17} | {factor:>7} |", text(ours));
}

/// What an object costs in overlays of growing size. Their renders take turns and the shortest time of each counts, so
/// that whatever else the machine does in between falls on none of them alone.
fn scaling() {
    const SIZES: [usize; 6] = [250, 500, 1_000, 2_000, 4_000, 8_000];
    let overlay = "overlays/e0".to_owned();
    let repositories = SIZES.map(|objects| shop(objects / 5, 1));
    let mut best = [Duration::MAX; SIZES.len()];
    for _ in 0..9 {
        for (repository, best) in repositories.iter().zip(&mut best) {
            *best = (*best).min(median(1, || drop(black_box(render(repository, &overlay).unwrap()))));
        }
    }
    for ((objects, repository), ours) in SIZES.into_iter().zip(&repositories).zip(best) {
        let theirs =
            (objects == 2_000).then(|| kubectl(repository, std::slice::from_ref(&overlay), 1)).flatten();
        let each = text(ours / objects as u32);
        row(&format!("one overlay of {objects} objects ({each} each)"), ours, theirs);
    }
}

fn main() {
    println!("| {:<52} | {:>11} | {:>17} | {:>7} |", "what", "engine", "kubectl kustomize", "faster");
    println!("|{:-<54}|{:-<13}|{:-<19}|{:-<9}|", "", "", "", "");

    let small = shop(7, 1);
    let overlay = "overlays/e0".to_owned();
    let objects = render(&small, &overlay).unwrap().objects.len();
    let ours = median(200, || drop(black_box(render(&small, &overlay).unwrap())));
    row(&format!("one overlay of a shop ({objects} objects)"), ours, kubectl(&small, &[overlay], 5));

    let many = shop(7, 100);
    let overlays: Vec<String> = (0..100).map(|n| format!("overlays/e{n}")).collect();
    let theirs = kubectl(&many, &overlays, 1);
    let plain = median(5, || {
        for overlay in &overlays {
            black_box(render(&many, overlay).unwrap());
        }
    });
    row("100 overlays over one base, each by itself", plain, theirs);
    let shared = median(5, || {
        let cache = Cache::new();
        for overlay in &overlays {
            black_box(render_with(&cache, &many, overlay).unwrap());
        }
    });
    row("100 overlays over one base, with a cache", shared, theirs);

    scaling();

    let monorepo = shop(7, 1_000);
    let reads: Vec<_> =
        (0..1_000).map(|n| render(&monorepo, &format!("overlays/e{n}")).unwrap().reads).collect();
    let after = monorepo.with("README.md", "a commit that touches nothing relevant");
    let check = median(50, || {
        for reads in &reads {
            assert!(black_box(reads.unchanged(&after)));
        }
    });
    row("re-render check, one of 1,000 environments", check / 1_000, None);
    row("re-render check, all 1,000 environments", check, None);
    let touched = monorepo.with("overlays/e7/more.yaml", "{}");
    let changed = reads.iter().filter(|reads| !reads.unchanged(&touched)).count();
    assert_eq!(changed, 1, "a commit to one environment touches that one");
}
