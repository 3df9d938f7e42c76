//! `holdfast render --explain`: which files and settings made an object what it is.

use engine::kustomize::{Rendered, Step};
use engine::object::ObjectRef;

/// Names of kinds that kubectl's users write short.
const SHORT: [(&str, &str); 19] = [
    ("cm", "configmap"),
    ("cj", "cronjob"),
    ("crd", "customresourcedefinition"),
    ("deploy", "deployment"),
    ("ds", "daemonset"),
    ("ep", "endpoints"),
    ("hpa", "horizontalpodautoscaler"),
    ("ing", "ingress"),
    ("netpol", "networkpolicy"),
    ("ns", "namespace"),
    ("pc", "priorityclass"),
    ("pdb", "poddisruptionbudget"),
    ("po", "pod"),
    ("pvc", "persistentvolumeclaim"),
    ("pv", "persistentvolume"),
    ("rs", "replicaset"),
    ("sa", "serviceaccount"),
    ("sts", "statefulset"),
    ("svc", "service"),
];

/// An object as kubectl's users write it: `deployment/web`, `deployments.apps/web`, `deployment.v1.apps/web`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    kind: String,
    group: Option<String>,
    name: String,
}

impl std::str::FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').filter(|(kind, name)| !kind.is_empty() && !name.is_empty());
        let (kind, name) = parts.ok_or("write KIND/NAME, such as deployment/web or deployment.apps/web")?;
        let (kind, group) = match kind.split_once('.') {
            // A version may stand before the group.
            Some((kind, rest)) => {
                let (first, more) = rest.split_once('.').unwrap_or((rest, ""));
                let is_version = first
                    .strip_prefix('v')
                    .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
                (kind, Some(if is_version { more } else { rest }))
            }
            None => (kind, None),
        };
        let kind = kind.to_ascii_lowercase();
        let kind =
            SHORT.iter().find(|(short, _)| *short == kind).map_or(kind, |(_, long)| (*long).to_owned());
        Ok(Self { kind, group: group.map(str::to_owned), name: name.to_owned() })
    }
}

impl Wanted {
    /// Whether this is a name before it got a suffix from the content: people do not know that by heart.
    fn is_before_suffix(&self, name: &str) -> bool {
        let suffix = name.strip_prefix(self.name.as_str()).and_then(|rest| rest.strip_prefix('-'));
        suffix.is_some_and(|suffix| {
            suffix.len() == 10
                && suffix.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        })
    }

    fn is(&self, object: &ObjectRef) -> bool {
        let kind = object.kind.to_ascii_lowercase();
        let plural = match kind.as_str() {
            kind if kind.ends_with(['s', 'x']) || kind.ends_with("ch") => format!("{kind}es"),
            kind if kind.ends_with('y') && !kind.ends_with("ay") && !kind.ends_with("ey") => {
                format!("{}ies", &kind[..kind.len() - 1])
            }
            kind => format!("{kind}s"),
        };
        (self.kind == kind || self.kind == plural)
            && self.group.as_ref().is_none_or(|group| *group == object.group)
            && (self.name == object.name || self.is_before_suffix(&object.name))
    }
}

/// The objects that are meant, each with its steps, as text.
///
/// # Errors
/// Where there is no such object: names those that are nearest.
pub(super) fn explain(
    rendered: &Rendered,
    wanted: &Wanted,
    namespace: Option<&str>,
) -> anyhow::Result<String> {
    let mut text = String::new();
    for (object, steps) in rendered.objects.iter().zip(&rendered.steps) {
        let identity = object.object_ref();
        let elsewhere = namespace.is_some_and(|wanted| identity.namespace.as_deref() != Some(wanted));
        if wanted.is(&identity) && !elsewhere {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&format!("{identity}\n"));
            text.push_str(&lines(steps));
        }
    }
    if text.is_empty() {
        let alike = rendered.objects.iter().map(|object| object.object_ref());
        let alike = alike.filter(|object| {
            object.name.contains(&wanted.name) || wanted.name.contains(&object.name) || {
                let any_name = Wanted { name: object.name.clone(), ..wanted.clone() };
                any_name.is(object)
            }
        });
        let alike: Vec<String> = alike.take(8).map(|object| object.to_string()).collect();
        let hint = if alike.is_empty() {
            "-o table lists what there is".to_owned()
        } else {
            format!("there is {}", alike.join(", "))
        };
        anyhow::bail!("the folder renders to no {}/{}; {hint}", wanted.kind, wanted.name);
    }
    Ok(text)
}

/// Steps in aligned columns: where, what, which fields.
fn lines(steps: &[Step]) -> String {
    let rows: Vec<[String; 3]> = steps
        .iter()
        .map(|step| {
            let with = step.with.as_ref().map(|with| format!(" (with {with})")).unwrap_or_default();
            let fields = if step.fields.is_empty() { "made it".to_owned() } else { step.fields.join(", ") };
            [format!("  {}", step.at), format!("{}{with}", step.action), fields]
        })
        .collect();
    super::table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::kustomize::{MapTree, Options, render_as};

    fn rendered() -> Rendered {
        let tree = MapTree::new()
            .with("base/kustomization.yaml", "resources: [web.yaml]\nconfigMapGenerator:\n- name: conf\n  literals: [a=b]\n")
            .with("base/web.yaml", "# The shop\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  template:\n    spec:\n      containers: [{name: web, image: shop, envFrom: [{configMapRef: {name: conf}}]}]\n")
            .with("dev/kustomization.yaml", "namespace: dev\nresources: [../base]\nnamePrefix: dev-\npatches:\n- path: more.yaml\nreplicas:\n- name: web\n  count: 3\nimages:\n- name: other\n  newTag: v2\n")
            .with("dev/more.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {paused: true}\n");
        let options = Options { explain: true, ..Options::default() };
        render_as(options, &tree, "dev").unwrap()
    }

    fn text(wanted: &str, namespace: Option<&str>) -> Result<String, String> {
        explain(&rendered(), &wanted.parse()?, namespace).map_err(|error| error.to_string())
    }

    #[test]
    fn every_step_is_named_with_its_place_and_fields() {
        assert_eq!(
            text("deploy/dev-web", Some("dev")).unwrap(),
            "Deployment.apps dev/dev-web
  base/web.yaml:2            resources                      made it
  dev/kustomization.yaml:5   patches (with dev/more.yaml)   spec.paused
  dev/kustomization.yaml:1   namespace                      metadata.namespace
  dev/kustomization.yaml:3   namePrefix                     metadata.name
  dev/kustomization.yaml:7   replicas                       spec.replicas
  dev/kustomization.yaml:1   references to names            spec.template.spec.containers[0].envFrom[0].configMapRef.name
"
        );
        // Nobody knows the suffix by heart.
        let text = text("configmaps/dev-conf", None).unwrap();
        assert!(
            text.contains("base/kustomization.yaml:3   configMapGenerator             made it"),
            "{text}"
        );
        assert!(text.contains("name suffix from the content   metadata.name"), "{text}");
    }

    #[test]
    fn objects_are_named_as_for_kubectl() {
        for wanted in [
            "Deployment/dev-web",
            "deployments/dev-web",
            "deployment.apps/dev-web",
            "deployments.v1.apps/dev-web",
        ] {
            assert!(text(wanted, None).is_ok(), "{wanted}");
        }
        for (wanted, namespace, expected) in [
            (
                "deployment.batch/dev-web",
                None,
                "the folder renders to no deployment/dev-web; there is Deployment.apps dev/dev-web",
            ),
            (
                "deployment/web",
                None,
                "the folder renders to no deployment/web; there is Deployment.apps dev/dev-web",
            ),
            (
                "deployment/dev-web",
                Some("prod"),
                "the folder renders to no deployment/dev-web; there is Deployment.apps dev/dev-web",
            ),
            ("job/nothing", None, "the folder renders to no job/nothing; -o table lists what there is"),
            ("deployment", None, "write KIND/NAME"),
        ] {
            let error = text(wanted, namespace).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
