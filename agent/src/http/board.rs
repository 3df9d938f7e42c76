//! The environments at a glance, for people: one page, without scripts.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;

/// An environment as people see it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentView {
    /// `namespace/name`.
    pub key: String,
    /// Where its rollout is.
    pub phase: String,
    /// Whether the newest release is out and healthy: `True`, `False` or `Unknown`.
    pub ready: String,
    /// The newest release: `main@1a2b3c4d5e6f`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// First line of its commit message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Its bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What serves now: `main@1a2b3c4d5e6f`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<String>,
    /// How it stands, in a sentence.
    pub message: String,
    /// What happened last, newest first.
    pub transitions: Vec<TransitionView>,
    /// The gates of the rollout under way, or of the last one.
    pub gates: Vec<GateView>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TransitionView {
    /// When.
    pub at: Timestamp,
    /// What, as a word.
    pub reason: String,
    /// The phase that it led to.
    pub to: String,
    /// In a sentence.
    pub message: String,
}

/// A gate as it stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GateView {
    /// Its name.
    pub name: String,
    /// Its verdict, in words.
    pub verdict: String,
    /// How many samples passed.
    pub passed: u32,
    /// How many failed.
    pub failed: u32,
}

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1d2430;--dim:#5b6575;--page:#f6f7f9;--card:#fff;--line:#dfe3e9;--good:#1a7f4b;\
--bad:#b3261e;--move:#8a5a00}\
@media(prefers-color-scheme:dark){:root{--ink:#e8ebf0;--dim:#9aa5b5;--page:#12161c;--card:#1b212a;--line:#2c3440;\
--good:#4cc38a;--bad:#ff8a80;--move:#f0b64a}}\
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}\
main{max-width:60rem;margin:0 auto;padding:1.5rem 1rem}h1{font-size:1.3rem;margin:0 0 1rem}\
h2{font-size:1.1rem;margin:0;display:flex;gap:.6rem;flex-wrap:wrap;align-items:baseline}\
h2 small{font-weight:400;color:var(--dim)}section{background:var(--card);border:1px solid var(--line);\
border-left:4px solid var(--move);border-radius:8px;padding:1rem;margin:0 0 1rem}section.good{border-left-color:var(--good)}\
section.bad{border-left-color:var(--bad)}.good b{color:var(--good)}.bad b{color:var(--bad)}.move b{color:var(--move)}\
p{margin:.4rem 0;overflow-wrap:anywhere}dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem .8rem;margin:.6rem 0}\
dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}table{width:100%;border-collapse:collapse;font-size:.88rem}\
th{text-align:left;color:var(--dim);font-weight:400}td,th{padding:.2rem .6rem .2rem 0;vertical-align:top;\
border-top:1px solid var(--line);overflow-wrap:anywhere}th,td:first-child,td:nth-child(2):nth-last-child(2),td:nth-child(3):nth-last-child(2),td:nth-child(4){white-space:nowrap}code{font-size:.92em}\
footer{color:var(--dim);font-size:.85rem}";

/// The page. Everything in it that others wrote is escaped.
pub(super) fn page(environments: &[EnvironmentView]) -> String {
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Holdfast</title>\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"refresh\" content=\"5\"><style>{STYLE}</style></head><body><main><h1>Environments</h1>"
    );
    if environments.is_empty() {
        html.push_str(
            "<p>There is no Environment yet. Make one: <code>kubectl apply -f environment.yaml</code></p>",
        );
    }
    for environment in environments {
        section(&mut html, environment);
    }
    html.push_str("<footer>Read-only. As JSON: <a href=\"/api/environments\">/api/environments</a></footer>");
    html.push_str("</main></body></html>\n");
    html
}

fn section(html: &mut String, environment: &EnvironmentView) {
    let moving = ["Applying", "Converging", "Canary", "Observing", "RollingBack"];
    let tone = match environment.ready.as_str() {
        "True" => "good",
        _ if moving.contains(&environment.phase.as_str()) => "move",
        _ => "bad",
    };
    // Writing to a string cannot fail.
    let _ = write!(
        html,
        "<section class=\"{tone}\"><h2>{} <b>{}</b> <small>Ready: {}</small></h2><p>{}</p><dl>",
        escape(&environment.key),
        escape(&environment.phase),
        escape(&environment.ready),
        escape(&environment.message),
    );
    for (name, value) in [
        ("Newest", &environment.revision),
        ("Subject", &environment.subject),
        ("Bundle", &environment.digest),
        ("Serving", &environment.serving),
    ] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            let _ = write!(html, "<dt>{name}</dt><dd>{}</dd>", escape(value));
        }
    }
    html.push_str("</dl>");
    if !environment.gates.is_empty() {
        html.push_str("<table><tr><th>Gate</th><th>Verdict</th><th>Passed</th><th>Failed</th></tr>");
        for gate in &environment.gates {
            let _ = write!(
                html,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(&gate.name),
                escape(&gate.verdict),
                gate.passed,
                gate.failed
            );
        }
        html.push_str("</table>");
    }
    if !environment.transitions.is_empty() {
        html.push_str("<table><tr><th>When (UTC)</th><th>What</th><th></th></tr>");
        for transition in &environment.transitions {
            let _ = write!(
                html,
                "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
                transition.at.strftime("%Y-%m-%d %H:%M:%S"),
                escape(&transition.reason),
                escape(&transition.message)
            );
        }
        html.push_str("</table>");
    }
    html.push_str("</section>");
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
