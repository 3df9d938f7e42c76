//! End-to-end scenarios: the agent as a process, a cluster, a repository, and what people do to them.
//!
//! `TEST_CLUSTER` names the clusters to run on; see [`tests::Kind`].

mod bad_manifest;
mod bad_metrics;
mod bad_source;
mod crash;
mod drift;
mod kubectl;
mod order;
mod release;
mod rollback;
mod scaling;
mod secrets;
mod slack;

use std::num::NonZeroUsize;
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use libtest_mimic::{Arguments, Failed, Trial};
use tests::{Kind, Report, Shared, Site};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

type Run = fn(Site) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

macro_rules! scenarios {
    ($($module:ident::$name:ident),* $(,)?) => {
        [$((concat!(stringify!($module), "::", stringify!($name)), |site| Box::pin($module::$name(site)))),*]
    };
}

// Those that take long are first, so that in the end none is waited for alone.
const SCENARIOS: &[(&str, Run)] = &scenarios![
    scaling::more_customers_bring_more_pods_and_fewer_take_them_away,
    rollback::a_version_that_fails_requests_is_undone_and_blocked,
    release::a_first_deploy_and_a_merge_lose_no_request,
    crash::a_killed_agent_finishes_a_good_rollout_after_its_restart,
    crash::a_killed_agent_undoes_a_bad_rollout_after_its_restart,
    bad_metrics::pods_without_metrics_hold_the_canary,
    bad_metrics::a_share_of_nothing_holds_the_canary,
    bad_manifest::a_wrong_commit_changes_nothing_and_is_named,
    bad_manifest::an_environment_without_rights_writes_nothing,
    bad_manifest::a_policy_keeps_a_release_out,
    bad_manifest::a_specification_that_makes_no_sense_is_refused_at_the_door,
    bad_source::repositories_that_are_missing_empty_unreachable_or_silent,
    bad_source::a_path_that_is_not_there,
    bad_source::a_branch_that_vanished_and_came_back_rewritten,
    drift::what_the_environment_owns_comes_back_and_nothing_else,
    drift::drift_is_left_alone_where_only_a_report_is_asked_for,
    kubectl::kubectl_reads_writes_and_waits,
    order::prod_gets_what_staging_has_had_for_a_while_and_waits_for_what_it_builds_on,
    release::a_commit_that_changes_nothing_of_it_writes_nothing,
    rollback::a_version_that_never_gets_ready_is_undone,
    secrets::secrets_in_git_open_with_the_key_that_arrives_and_variables_follow_the_cluster,
    slack::refusals_and_rate_limits_delay_messages_and_nothing_else,
    slack::a_refusal_is_told_where_people_look_next,
];

/// What a control plane alone cannot show, and why.
const EMBEDDED_ONLY: &[(&str, &str)] = &[(
    "scaling::more_customers_bring_more_pods_and_fewer_take_them_away",
    "nothing there measures the processes of the playground's node for metrics.k8s.io",
)];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Scenarios wait more than they work.
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    arguments.test_threads.get_or_insert(processors + 1);
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the scenarios on each cluster, and returns whether all passed.
fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let runtime = Arc::new(tokio::runtime::Builder::new_multi_thread().enable_all().build()?);
    let report = Arc::new(Report::default());
    let mut passed = true;
    for kind in Kind::chosen()? {
        // It comes up with the first scenario, if any is chosen.
        let shared: Arc<OnceCell<Result<Arc<Shared>, String>>> = Arc::default();
        let trials =
            SCENARIOS.iter().map(|(name, run)| trial(name, *run, kind, &runtime, &shared, &report)).collect();
        passed &= !libtest_mimic::run(arguments, trials).has_failed();
        if let Some(Ok(shared)) = Arc::into_inner(shared).and_then(OnceCell::into_inner)
            && let Some(shared) = Arc::into_inner(shared)
        {
            runtime.block_on(shared.close())?;
        }
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scenarios.tsv");
    let built = std::env::current_exe()?.metadata()?.modified()?;
    report.read(&file, built)?;
    report.write(&file)?;
    if !arguments.list {
        println!("{}", report.table());
    }
    Ok(passed)
}

fn trial(
    name: &'static str,
    run: Run,
    kind: Kind,
    runtime: &Arc<Runtime>,
    shared: &Arc<OnceCell<Result<Arc<Shared>, String>>>,
    report: &Arc<Report>,
) -> Trial {
    let (runtime, shared, report) = (Arc::clone(runtime), Arc::clone(shared), Arc::clone(report));
    let trial = move || -> Result<(), Failed> {
        let site = match kind {
            Kind::Embedded => Site::Own,
            Kind::ControlPlane | Kind::Kubeconfig => {
                let open =
                    async { Shared::open(kind).await.map(Arc::new).map_err(|error| format!("{error:#}")) };
                let opened = runtime.block_on(shared.get_or_init(|| open));
                Site::Shared(opened.clone().map_err(|error| format!("there is no cluster {kind}: {error}"))?)
            }
        };
        let begin = Instant::now();
        // A runtime of its own: what a scenario leaves behind ends with it.
        let own = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let ended = own.block_on(run(site));
        report.add(name, kind, ended.is_ok(), begin.elapsed());
        ended.map_err(|error| Failed::from(format!("{error:?}")))
    };
    let left_out = EMBEDDED_ONLY.iter().find(|(only, _)| *only == name && kind != Kind::Embedded);
    if let Some((_, reason)) = left_out {
        tests::skipped(&format!("{name} on {kind}"), reason);
    }
    Trial::test(name, trial).with_kind(kind.to_string()).with_ignored_flag(left_out.is_some())
}
