//! Replays what a real API server answered (`tests/vectors`) on the embedded one, and compares.

use conformance::exceptions;
use conformance::replay::{Target, replay};
use conformance::scenario::Scenario;

#[tokio::test(flavor = "multi_thread")]
async fn recorded_answers_are_given_again() {
    let only = std::env::var("VECTOR").unwrap_or_default();
    let folder = conformance::folder();
    let exceptions = exceptions::read(&folder.join("EXCEPTIONS.txt"), "embedded").unwrap();
    let scenarios = Scenario::read_all(&folder).unwrap();
    assert!(scenarios.len() > 40, "the recorded scenarios are missing");
    let mut running = Vec::new();
    for scenario in scenarios.into_iter().filter(|s| s.name.contains(&only)) {
        let name = scenario.name.clone();
        running.push((name, tokio::spawn(async move { replay(&scenario, &Target::Embedded).await })));
    }
    let (mut all, mut same, mut wrong) = (0, 0, Vec::new());
    for (name, task) in running {
        let outcome = task.await.unwrap().unwrap();
        all += outcome.total;
        same += outcome.equal();
        println!("{name:32} {:3} / {:3}", outcome.equal(), outcome.total);
        for (step, differences) in &outcome.different {
            println!("  #{step} {}", differences.join("\n      "));
            if !exceptions.contains_key(&(name.clone(), *step)) {
                wrong.push(format!("{name} {step} differs"));
            }
        }
        for (_, step) in exceptions.keys().filter(|(scenario, _)| *scenario == name) {
            if !outcome.different.iter().any(|(index, _)| index == step) {
                wrong.push(format!("{name} {step} is equal and no exception any more"));
            }
        }
    }
    println!("{:32} {same:3} / {all:3}", "all");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
