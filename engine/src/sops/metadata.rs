//! Sops's own part of a file: for whom it is encrypted, which values, and its MAC.

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::cipher::DataKey;
use super::error::SopsProblem;
use super::{KeyRing, shares};

/// What values end with that are not encrypted where a file says nothing else.
const UNENCRYPTED: &str = "_unencrypted";
/// The largest program that an expression of a file may become, in bytes.
const EXPRESSION_BYTES: usize = 1 << 20;

/// How many recipients of a group are tried: each costs about as much as a signature.
const MAX_TRIED: usize = 200;
/// How many key groups a file may have.
const MAX_GROUPS: usize = 16;

/// Keys of other kinds than age, by the field that lists them.
const OTHER_KEYS: [(&str, &str); 6] = [
    ("pgp", "fp"),
    ("kms", "arn"),
    ("gcp_kms", "resource_id"),
    ("azure_kv", "vault_url"),
    ("hc_vault", "vault_address"),
    ("hckms", "key_id"),
];

/// Names from a file as a message may hold them: few, short, and in one line.
fn shown(names: Vec<String>) -> Vec<String> {
    const MOST: usize = 10;
    const LONGEST: usize = 120;
    let more = names.len().saturating_sub(MOST);
    let mut shown: Vec<String> = names
        .into_iter()
        .take(MOST)
        .map(|name| name.chars().filter(|c| !c.is_control()).take(LONGEST).collect())
        .collect();
    if more > 0 {
        shown.push(format!("{more} more"));
    }
    shown
}

/// Which values are encrypted.
#[derive(Debug)]
enum Rule {
    AllBut(Part),
    Only(Part),
    /// Comments say it, which are not read: what looks encrypted is.
    Comments,
}

/// What a part of a path looks like.
#[derive(Debug)]
enum Part {
    EndsWith(String),
    Matches(Regex),
}

impl Part {
    fn fits(&self, path: &[String]) -> bool {
        path.iter().any(|part| match self {
            Self::EndsWith(end) => part.ends_with(end.as_str()),
            Self::Matches(expression) => expression.is_match(part),
        })
    }
}

/// The metadata of a file.
#[derive(Debug)]
pub(super) struct Metadata {
    /// The MAC, encrypted.
    pub mac: String,
    /// When the file was encrypted: the MAC is bound to it.
    pub last_modified: String,
    /// Whether the MAC covers encrypted values only.
    pub mac_only_encrypted: bool,
    rule: Rule,
    groups: Vec<Group>,
    threshold: usize,
}

/// Keys of which each opens the data key, or a share of it.
#[derive(Debug, Default)]
struct Group {
    /// Recipient, and what is sealed for it.
    age: Vec<(String, String)>,
    /// Other kinds of keys.
    others: Vec<String>,
}

impl Group {
    fn read(value: &Value) -> Self {
        let list = |field: &str| value[field].as_array().map(Vec::as_slice).unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            age: list("age").iter().map(|key| (text(&key["recipient"]), text(&key["enc"]))).collect(),
            others: OTHER_KEYS
                .iter()
                .flat_map(|(field, name)| {
                    list(field).iter().map(move |key| {
                        format!("{field} {}", key[*name].as_str().unwrap_or_default()).trim_end().to_owned()
                    })
                })
                .collect(),
        }
    }
}

impl Metadata {
    /// Reads the field `sops`.
    pub fn read(value: &Value) -> Result<Self, SopsProblem> {
        let damaged = |what: &str| SopsProblem::Metadata(what.to_owned());
        let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let is_on = |field: &str| value[field] == true || value[field] == "true";
        let mut groups: Vec<Group> =
            value["key_groups"].as_array().into_iter().flatten().map(Group::read).collect();
        let flat = Group::read(value);
        if !flat.age.is_empty() || !flat.others.is_empty() {
            groups = vec![flat];
        }
        if groups.len() > MAX_GROUPS {
            return Err(damaged("it has more key groups than anybody needs"));
        }
        if groups.is_empty() {
            return Err(damaged("it lists no keys"));
        }
        let (mac, last_modified) = (text("mac"), text("lastmodified"));
        if mac.is_empty() || last_modified.is_empty() {
            return Err(damaged("it has no mac or no lastmodified"));
        }
        let threshold = match &value["shamir_threshold"] {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let threshold = threshold.and_then(|count| usize::try_from(count).ok()).filter(|count| *count > 0);
        Ok(Self {
            mac,
            last_modified,
            mac_only_encrypted: is_on("mac_only_encrypted"),
            rule: Self::rule(value)?,
            threshold: threshold.unwrap_or(groups.len()).min(groups.len()),
            groups,
        })
    }

    fn rule(value: &Value) -> Result<Rule, SopsProblem> {
        let expression = |text: &str| {
            RegexBuilder::new(text).size_limit(EXPRESSION_BYTES).build().map(Part::Matches).map_err(|_| {
                SopsProblem::Metadata("one of its regular expressions cannot be read".to_owned())
            })
        };
        let fields = [
            "unencrypted_suffix",
            "encrypted_suffix",
            "unencrypted_regex",
            "encrypted_regex",
            "unencrypted_comment_regex",
            "encrypted_comment_regex",
        ];
        let set = fields.iter().filter_map(|field| {
            value[*field].as_str().filter(|text| !text.is_empty()).map(|text| (*field, text))
        });
        match set.collect::<Vec<_>>().as_slice() {
            [] => Ok(Rule::AllBut(Part::EndsWith(UNENCRYPTED.to_owned()))),
            [("unencrypted_suffix", text)] => Ok(Rule::AllBut(Part::EndsWith((*text).to_owned()))),
            [("encrypted_suffix", text)] => Ok(Rule::Only(Part::EndsWith((*text).to_owned()))),
            [("unencrypted_regex", text)] => expression(text).map(Rule::AllBut),
            [("encrypted_regex", text)] => expression(text).map(Rule::Only),
            [_] => Ok(Rule::Comments),
            _ => Err(SopsProblem::Metadata("it has several rules for what is encrypted".to_owned())),
        }
    }

    /// Whether the value at a path is encrypted; `form` is whether it looks so.
    pub fn is_encrypted(&self, path: &[String], form: bool) -> bool {
        match &self.rule {
            Rule::AllBut(part) => !part.fits(path),
            Rule::Only(part) => part.fits(path),
            Rule::Comments => form,
        }
    }

    /// The recipients of age, as messages name them.
    fn recipients(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.groups.iter().flat_map(|group| &group.age).map(|(name, _)| name.clone()).collect();
        names.sort();
        names.dedup();
        shown(names)
    }

    /// The file's data key.
    pub fn data_key(&self, keys: Option<&dyn KeyRing>) -> Result<DataKey, SopsProblem> {
        let recipients = self.recipients();
        if recipients.is_empty() {
            let kinds = self.groups.iter().flat_map(|group| group.others.clone()).collect();
            return Err(SopsProblem::OtherKeys { kinds: shown(kinds) });
        }
        let Some(keys) = keys else { return Err(SopsProblem::NoKeys { recipients }) };
        let own = keys.recipients();
        let opened: Vec<Vec<u8>> = self
            .groups
            .iter()
            .filter_map(|group| {
                // What is said to be for one of the keys is tried first, and mostly alone.
                let (likely, others): (Vec<_>, Vec<_>) =
                    group.age.iter().partition(|(name, _)| own.contains(name));
                likely.into_iter().chain(others).take(MAX_TRIED).find_map(|(_, sealed)| keys.open(sealed))
            })
            .collect();
        let wrong = || SopsProblem::WrongKeys { recipients: recipients.clone(), given: keys.recipients() };
        let damaged = || SopsProblem::Metadata("its data key cannot be put together".to_owned());
        if self.groups.len() == 1 {
            return DataKey::new(opened.first().ok_or_else(wrong)?).ok_or_else(damaged);
        }
        match opened.len() {
            0 => Err(wrong()),
            count if count < self.threshold => Err(SopsProblem::TooFewGroups {
                needed: self.threshold,
                groups: self.groups.len(),
                opened: count,
            }),
            _ => shares::combine(&opened).and_then(|key| DataKey::new(&key)).ok_or_else(damaged),
        }
    }
}
