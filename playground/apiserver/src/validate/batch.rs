//! Rules for Jobs and CronJobs.
//!
//! Wording: Kubernetes `pkg/apis/batch/validation` and github.com/robfig/cron.

use super::meta;
use super::pod::{not_negative, pod_spec};
use crate::selector::Labels;
use crate::status::Cause;
use serde_json::{Value, json};

/// A Job.
pub fn job(object: &Value, is_new: bool, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    job_spec(spec, "spec", causes);
    if !is_new {
        return;
    }
    let labels = &spec["template"]["metadata"]["labels"];
    meta::labels(labels, "spec.template.labels", causes);
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
    let manual = spec["manualSelector"] == true;
    if spec["selector"].is_null() {
        causes.push(Cause::required("spec.selector", ""));
    }
    if !manual {
        let own = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
        if spec["selector"] != own {
            causes.push(Cause::invalid("spec.selector", &spec["selector"], "`selector` not auto-generated"));
        }
        for (key, wanted) in [
            ("batch.kubernetes.io/job-name", name),
            ("job-name", name),
            ("batch.kubernetes.io/controller-uid", uid),
            ("controller-uid", uid),
        ] {
            if labels[key].as_str() != Some(wanted) {
                let at = format!("spec.template.metadata.labels[{key}]");
                causes.push(Cause::invalid(at, &crate::body::sorted(labels), format!("must be '{wanted}'")));
            }
        }
    }
    let selector = Labels::from_object(&spec["selector"]);
    if spec["selector"].is_null() || !selector.matches_labels(labels) {
        let detail = "`selector` does not match template `labels`";
        causes.push(Cause::invalid("spec.template.metadata.labels", &crate::body::sorted(labels), detail));
    }
}

/// The status of a Job.
pub fn status(object: &Value, causes: &mut Vec<Cause>) {
    for key in ["active", "succeeded", "failed", "terminating", "ready"] {
        not_negative(&object["status"][key], &format!("status.{key}"), causes);
    }
}

fn job_spec(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    for key in
        ["parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"]
    {
        not_negative(&spec[key], &format!("{path}.{key}"), causes);
    }
    let mode = &spec["completionMode"];
    if mode.is_string() && *mode != "NonIndexed" && *mode != "Indexed" {
        let allowed = ["NonIndexed", "Indexed"].map(String::from);
        causes.push(Cause::unsupported(format!("{path}.completionMode"), mode, &allowed));
    }
    if *mode == "Indexed" && spec["completions"].is_null() {
        let detail = "when completion mode is Indexed";
        causes.push(Cause::required(format!("{path}.completions"), detail));
    }
    for (index, rule) in spec["podFailurePolicy"]["rules"].as_array().into_iter().flatten().enumerate() {
        let at = format!("{path}.podFailurePolicy.rules[{index}]");
        let set = [
            !rule["onExitCodes"].is_null(),
            rule["onPodConditions"].as_array().is_some_and(|l| !l.is_empty()),
        ];
        let detail = match set {
            [false, false] => "specifying one of OnExitCodes and OnPodConditions is required",
            [true, true] => "specifying both OnExitCodes and OnPodConditions is not supported",
            _ => continue,
        };
        // As on a real server, what is wrong is not repeated.
        causes.push(Cause {
            field: at,
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {detail}"),
        });
    }
    let template = &spec["template"]["spec"];
    pod_spec(template, &format!("{path}.template.spec"), &[], causes);
    let policy = &template["restartPolicy"];
    if *policy == "Always" || *policy == "" {
        let detail = "valid values: \"OnFailure\", \"Never\"";
        causes.push(Cause::required(format!("{path}.template.spec.restartPolicy"), detail));
    }
}

/// The longest name of a CronJob: its Jobs add eleven characters.
const LONGEST: usize = 52;

/// A CronJob.
pub fn cron_job(object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    let schedule = spec["schedule"].as_str().unwrap_or_default();
    if schedule.is_empty() {
        causes.push(Cause::required("spec.schedule", ""));
    } else if schedule.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        causes.push(Cause::invalid("spec.schedule", &spec["schedule"], detail));
    } else if let Err(detail) = cron(schedule) {
        causes.push(Cause::invalid("spec.schedule", &spec["schedule"], detail));
    }
    let zone = &spec["timeZone"];
    if let Some(name) = zone.as_str() {
        if name.is_empty() {
            causes.push(Cause::invalid("spec.timeZone", zone, "timeZone must be nil or non-empty string"));
        } else if name.eq_ignore_ascii_case("local") || !is_zone(name) {
            causes.push(Cause::invalid("spec.timeZone", zone, format!("unknown time zone {name}")));
        }
    }
    for key in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        not_negative(&spec[key], &format!("spec.{key}"), causes);
    }
    let job = &spec["jobTemplate"]["spec"];
    job_spec(job, "spec.jobTemplate.spec", causes);
    if !job["selector"].is_null() {
        let at = "spec.jobTemplate.spec.selector";
        causes.push(Cause::invalid(at, &job["selector"], "`selector` will be auto-generated"));
    }
    let name = &object["metadata"]["name"];
    if name.as_str().is_some_and(|n| n.len() > LONGEST) {
        let detail = format!("must be no more than {LONGEST} characters");
        causes.push(Cause::invalid("metadata.name", name, detail));
    }
}

/// Whether a time zone has the form of one. Which ones there are is for those to know who keep the time.
fn is_zone(name: &str) -> bool {
    name.split('/').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic()))
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Reads a schedule; the error is what robfig/cron says.
fn cron(text: &str) -> Result<(), String> {
    if let Some(word) = text.strip_prefix('@') {
        let known = ["yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"];
        let every = word.strip_prefix("every ").is_some_and(|d| !d.is_empty());
        return if known.contains(&word) || every {
            Ok(())
        } else {
            Err(format!("unrecognized descriptor: {text}"))
        };
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [minutes, hours, days, months, weekdays] = fields[..] else {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    };
    field(minutes, 0, 59, &[])?;
    field(hours, 0, 23, &[])?;
    field(days, 1, 31, &[])?;
    field(months, 1, 12, &MONTHS)?;
    field(weekdays, 0, 6, &DAYS)
}

fn field(text: &str, least: i64, most: i64, names: &[&str]) -> Result<(), String> {
    let number = |word: &str| -> Result<i64, String> {
        if let Some(at) = names.iter().position(|n| n.eq_ignore_ascii_case(word)) {
            return Ok(at as i64 + least);
        }
        word.parse::<i64>().map_err(|_| {
            format!("failed to parse int from {word}: strconv.Atoi: parsing {word:?}: invalid syntax")
        })
    };
    for part in text.split(',') {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let (first, last) = match range.split_once('-') {
            Some((a, b)) => (number(a)?, number(b)?),
            None if matches!(range, "*" | "?") => (least, most),
            None => {
                let first = number(range)?;
                (first, if step.is_some() { most } else { first })
            }
        };
        if let Some(step) = step
            && number(step)? == 0
        {
            return Err(format!("step of range should be a positive number: {part}"));
        }
        if first < least {
            return Err(format!("beginning of range ({first}) below minimum ({least}): {part}"));
        }
        if last > most {
            return Err(format!("end of range ({last}) above maximum ({most}): {part}"));
        }
        if first > last {
            return Err(format!("beginning of range ({first}) beyond end of range ({last}): {part}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for good in ["*/5 * * * *", "0 0 * JAN-MAR MON,FRI", "@hourly", "@every 1h", "5/15 0-23/2 ? * *"] {
            assert_eq!(cron(good), Ok(()), "{good}");
        }
        for bad in ["* * *", "60 * * * *", "* * 0 * *", "5-1 * * * *", "*/0 * * * *", "x * * * *", "@never"] {
            assert!(cron(bad).is_err(), "{bad}");
        }
    }
}
