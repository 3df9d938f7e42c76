//! A checker of plans: whatever the planner does, these must hold.

use std::collections::BTreeSet;

use super::{Plan, StageName};

/// What is wrong with a plan; nothing if it keeps its promises.
pub fn lint(plan: &Plan) -> Vec<String> {
    let mut problems = Vec::new();
    let mut written = BTreeSet::new();
    let mut indices = BTreeSet::new();
    if !plan.stages.is_sorted_by(|a, b| a.name < b.name) {
        problems.push("stages are out of order".to_owned());
    }
    for stage in &plan.stages {
        if stage.writes.is_empty() {
            problems.push(format!("stage {} is empty", stage.name));
        }
        for write in &stage.writes {
            if StageName::of(&write.object.group_kind()) != stage.name {
                problems.push(format!("{} does not belong to stage {}", write.object, stage.name));
            }
            if !written.insert(&write.object) {
                problems.push(format!("{} is written twice", write.object));
            }
            if !indices.insert(write.index) {
                problems.push(format!("wanted object {} is written twice", write.index));
            }
        }
    }
    let stage = |object: &crate::object::ObjectRef| StageName::of(&object.group_kind());
    if !plan.prune.is_sorted_by(|a, b| stage(&a.object) >= stage(&b.object)) {
        problems.push("deletions are out of order".to_owned());
    }
    let mut deleted = BTreeSet::new();
    for deletion in &plan.prune {
        if written.contains(&deletion.object) {
            problems.push(format!("{} is written and deleted", deletion.object));
        }
        if !deleted.insert(&deletion.object) {
            problems.push(format!("{} is deleted twice", deletion.object));
        }
        if deletion.uid.is_empty() || deletion.resource_version.is_empty() {
            problems.push(format!("{} would be deleted without preconditions", deletion.object));
        }
    }
    for (object, _) in &plan.kept {
        if deleted.contains(object) || written.contains(object) {
            problems.push(format!("{object} is kept, and written or deleted"));
        }
    }
    problems
}
