//! A merge: a new version is pushed, goes out behind a canary, and no customer notices.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;

use super::{Error, Stage, short, unexpected};
use crate::shop;
use crate::traffic::Traffic;
use crate::watch::{self, Check};

const DEADLINE: Duration = Duration::from_secs(60);

/// Returns the time from the push to the first write.
pub(super) async fn run(stage: &Stage<'_>, traffic: &Traffic) -> Result<Duration, Error> {
    let version = release(stage, shop::with_version)?;
    let before = traffic.tally();
    let commit = stage.push(&format!("Release {version}"))?;
    let begin = Instant::now();
    let written = async {
        image(stage, &version).await?;
        let took = begin.elapsed();
        stage.printer.done(took, format!("the Deployment has the image of {version}: push to applied"));
        Ok(took)
    };
    let (applied, ()) = tokio::try_join!(written, stage.follow(&commit.id, begin, DEADLINE))?;
    stage.printer.done(begin.elapsed(), format!("{version} is live at {}", short(&commit.id)));

    let seen = traffic.tally().since(&before);
    stage.printer.note(format!("traffic meanwhile: {seen}"));
    if seen.failed > 0 {
        return Err(unexpected("no failed request during a good release", seen.to_string()));
    }
    if seen.by_version.get(&version).is_none_or(|answers| answers.requests == 0) {
        return Err(unexpected(
            format!("customers to see {version}"),
            format!("{:?}", seen.by_version.keys()),
        ));
    }
    Ok(applied)
}

/// Edits the kustomization for the version after the one in it, and returns that.
pub(super) fn release(
    stage: &Stage<'_>,
    edit: impl FnOnce(&str, &str) -> Result<String, String>,
) -> Result<String, Error> {
    let text = stage.repository.read(shop::KUSTOMIZATION)?;
    let version = shop::version(&text)
        .and_then(shop::next_version)
        .ok_or_else(|| unexpected(format!("a version such as v1.0.0 in {}", shop::KUSTOMIZATION), "none"))?;
    stage.repository.edit(shop::KUSTOMIZATION, |text| edit(text, &version))?;
    Ok(version)
}

/// Waits until the Deployment asks for the image of a version.
pub(super) async fn image(stage: &Stage<'_>, version: &str) -> Result<(), Error> {
    let deployments: Api<Deployment> = Api::namespaced(stage.client.clone(), shop::NAMESPACE);
    let wanted = format!("{}:{version}", shop::IMAGE);
    let expected = format!("Deployment {} to ask for {wanted}", shop::DEPLOYMENT);
    watch::until_one(&deployments, shop::DEPLOYMENT, expected, DEADLINE, |seen| {
        let image = seen.and_then(|deployment| {
            deployment.spec.as_ref()?.template.spec.as_ref()?.containers.first()?.image.clone()
        });
        match image {
            Some(image) if image == wanted => Check::Met(()),
            Some(image) => Check::Not(image),
            None => Check::Not("no such Deployment".to_owned()),
        }
    })
    .await?;
    Ok(())
}
