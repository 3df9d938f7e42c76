//! What a render needs from the cluster: the keys of encrypted files, and the values of variables.

use engine::rollout::SourceProblem;
use engine::substitute::Variables;
use tokio::sync::watch;

use crate::age::AgeKeys;
use crate::api::{Environment, EnvironmentSpec, SubstituteKind};
use crate::cluster::{Cluster, InputKind, InputRef, InputState};

/// What a render needs beside the files.
#[derive(Debug, Default)]
pub struct Materials {
    /// What encrypted files are opened with.
    pub keys: Option<AgeKeys>,
    /// What is put into the objects.
    pub variables: Option<Variables>,
}

impl Materials {
    /// A name for the variables, by which a render is known to depend on them.
    pub fn variables_id(&self) -> Option<String> {
        self.variables.as_ref().map(Variables::id)
    }
}

/// A ConfigMap or Secret that is followed.
#[derive(Debug)]
struct Followed {
    input: InputRef,
    optional: bool,
    state: watch::Receiver<InputState>,
}

/// The ConfigMaps and Secrets that an environment's renders depend on.
#[derive(Debug, Default)]
pub struct Supplies {
    decryption: Option<Followed>,
    variables: Vec<Followed>,
}

impl Supplies {
    /// Follows what a specification names.
    pub fn follow(cluster: &Cluster, environment: &Environment) -> Self {
        let followed = |kind, name: &str, optional| {
            let input =
                InputRef { kind, namespace: environment.namespace().to_owned(), name: name.to_owned() };
            Followed { state: cluster.input(&input), input, optional }
        };
        let spec = &environment.spec;
        let decryption = spec.decryption.as_ref();
        let from = spec.substitute.iter().flat_map(|substitute| &substitute.from);
        Self {
            decryption: decryption.map(|holder| followed(InputKind::Secret, &holder.secret_ref.name, false)),
            variables: from
                .map(|source| {
                    let kind = match source.kind {
                        SubstituteKind::ConfigMap => InputKind::ConfigMap,
                        SubstituteKind::Secret => InputKind::Secret,
                    };
                    followed(kind, &source.name, source.optional)
                })
                .collect(),
        }
    }

    /// What is there now; none while the cluster has not answered for all of it.
    ///
    /// # Errors
    /// A [`SourceProblem`] names what is missing or makes no sense.
    pub fn materials(&mut self, spec: &EnvironmentSpec) -> Result<Option<Materials>, SourceProblem> {
        let mut materials = Materials::default();
        if let Some(followed) = &mut self.decryption {
            let fail = |message: String| problem("DecryptionFailed", "spec.decryption.secretRef", message);
            let name = followed.input.to_string();
            match &*followed.state.borrow_and_update() {
                InputState::Pending => return Ok(None),
                InputState::Missing => return Err(fail(format!("{name} does not exist; create it"))),
                InputState::Failed(message) => {
                    return Err(unreadable(fail(format!("{name} cannot be read: {message}"))));
                }
                InputState::Present(data) => {
                    let keys = AgeKeys::from_secret(data);
                    materials.keys = Some(keys.map_err(|error| fail(format!("{name}: {error}")))?);
                }
            }
        }
        let Some(substitute) = &spec.substitute else { return Ok(Some(materials)) };
        let mut variables = Variables::default();
        for (at, followed) in self.variables.iter_mut().enumerate() {
            let field = format!("spec.substitute.from[{at}]");
            let fail = |message: String| problem("SubstitutionFailed", &field, message);
            let name = followed.input.to_string();
            let is_secret = followed.input.kind == InputKind::Secret;
            match &*followed.state.borrow_and_update() {
                InputState::Pending => return Ok(None),
                InputState::Missing if followed.optional => {}
                InputState::Missing => {
                    return Err(fail(format!("{name} does not exist; create it, or mark it optional")));
                }
                InputState::Failed(message) => {
                    return Err(unreadable(fail(format!("{name} cannot be read: {message}"))));
                }
                InputState::Present(data) => {
                    for (key, value) in data.iter() {
                        let value = std::str::from_utf8(value)
                            .map_err(|_| fail(format!("{name}: the value of {key} is not UTF-8 text")))?;
                        let set = variables.set(key, value, is_secret);
                        set.map_err(|error| fail(format!("{name}: {error}")))?;
                    }
                }
            }
        }
        // What stands in the specification itself wins, as in Flux.
        for (name, value) in &substitute.vars {
            let set = variables.set(name, value, false);
            set.map_err(|error| problem("InvalidSpec", "spec.substitute.vars", error.to_string()))?;
        }
        materials.variables = Some(variables);
        Ok(Some(materials))
    }

    /// Waits until any of it changes; forever where there is nothing.
    pub async fn changed(&mut self) {
        let all = self.decryption.iter_mut().chain(&mut self.variables);
        let waiting: Vec<_> = all
            .map(|followed| {
                Box::pin(async {
                    // The watch lives as long as the receiver.
                    if followed.state.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                })
            })
            .collect();
        if waiting.is_empty() {
            return std::future::pending().await;
        }
        futures::future::select_all(waiting).await;
    }
}

/// A problem that somebody has to act on.
fn problem(reason: &str, field: &str, message: String) -> SourceProblem {
    let message = format!("{field}: {message}");
    SourceProblem { reason: reason.to_owned(), message, commit_at_fault: true }
}

/// A problem that may pass: the API server does not answer, or not yet.
fn unreadable(problem: SourceProblem) -> SourceProblem {
    SourceProblem { commit_at_fault: false, ..problem }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn spec(extra: serde_json::Value) -> EnvironmentSpec {
        let mut spec = json!({"source": {"url": "https://example.org/r.git", "branch": "main"}});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    fn present(pairs: &[(&str, &str)]) -> InputState {
        let data = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()));
        InputState::Present(Arc::new(data.collect::<BTreeMap<_, _>>()))
    }

    fn followed(kind: InputKind, name: &str, optional: bool, state: InputState) -> Followed {
        let input = InputRef { kind, namespace: "shop".to_owned(), name: name.to_owned() };
        Followed { input, optional, state: watch::channel(state).1 }
    }

    #[test]
    fn later_sources_win_and_the_specification_wins_over_all() {
        let spec = spec(json!({"substitute": {"vars": {"C": "inline"}, "from": [
            {"kind": "ConfigMap", "name": "a"},
            {"kind": "Secret", "name": "b"},
            {"kind": "Secret", "name": "none", "optional": true}
        ]}}));
        let mut supplies = Supplies {
            decryption: None,
            variables: vec![
                followed(InputKind::ConfigMap, "a", false, present(&[("A", "1"), ("B", "1"), ("C", "1")])),
                followed(InputKind::Secret, "b", false, present(&[("B", "2\n"), ("C", "2")])),
                followed(InputKind::Secret, "none", true, InputState::Missing),
            ],
        };
        let mut expected = Variables::default();
        for (name, value, is_secret) in [("A", "1", false), ("B", "2", true), ("C", "inline", false)] {
            expected.set(name, value, is_secret).unwrap();
        }
        assert_eq!(supplies.materials(&spec).unwrap().unwrap().variables, Some(expected));
    }

    #[test]
    fn what_is_missing_is_named_and_what_is_not_known_yet_is_waited_for() {
        let spec = spec(json!({
            "decryption": {"secretRef": {"name": "keys"}},
            "substitute": {"from": [{"kind": "ConfigMap", "name": "a"}]}
        }));
        let fine = present(&[("A", "1")]);
        let key = std::fs::read_to_string(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../engine/tests/sops/TEST-ONLY.agekey"
        ));
        let keys = present(&[("age.agekey", &key.unwrap())]);
        let result = |keys: InputState, map: InputState| {
            let mut supplies = Supplies {
                decryption: Some(followed(InputKind::Secret, "keys", false, keys)),
                variables: vec![followed(InputKind::ConfigMap, "a", false, map)],
            };
            supplies.materials(&spec).map_err(|problem| (problem.reason, problem.message))
        };
        assert!(result(InputState::Pending, fine.clone()).unwrap().is_none());
        assert!(result(keys.clone(), InputState::Pending).unwrap().is_none());
        assert!(result(keys.clone(), fine.clone()).unwrap().unwrap().keys.is_some());
        for (first, second, reason, message) in [
            (
                InputState::Missing,
                fine.clone(),
                "DecryptionFailed",
                "spec.decryption.secretRef: Secret shop/keys does not exist",
            ),
            (
                present(&[("a", "b")]),
                fine.clone(),
                "DecryptionFailed",
                "spec.decryption.secretRef: Secret shop/keys: it has no entry",
            ),
            (
                keys.clone(),
                InputState::Failed("forbidden".to_owned()),
                "SubstitutionFailed",
                "spec.substitute.from[0]: ConfigMap shop/a cannot be read: forbidden",
            ),
            (
                keys.clone(),
                present(&[("not-a-name", "x")]),
                "SubstitutionFailed",
                "spec.substitute.from[0]: ConfigMap shop/a: \"not-a-name\" cannot be the name of a variable",
            ),
        ] {
            let error = result(first, second).unwrap_err();
            assert!(error.0 == reason && error.1.starts_with(message), "{error:?}");
        }
    }
}
