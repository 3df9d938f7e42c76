//! Addresses of repositories: which transport they need, and how they are shown without secrets.

use std::fmt;
use std::path::{Path, PathBuf};

use super::SourceError;
use super::credentials::{Auth, Credentials};
use crate::secret::Secret;

/// How a repository is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// A repository on this machine, by `file://` URL or path.
    Local,
    /// The unencrypted Git protocol, `git://`.
    Git,
    /// Smart HTTP, `http://` or `https://`.
    Http,
}

/// The address of a repository, free of user names and passwords, so that it can be shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryUrl {
    transport: Transport,
    /// What libgit2 is given: a path for local repositories, otherwise a URL.
    address: String,
}

impl RepositoryUrl {
    /// Reads an address as Git users write it, and the credentials inside it, if there are any.
    ///
    /// # Errors
    /// [`SourceError::UnsupportedUrl`], without the text of the URL's user part.
    pub fn parse(text: &str) -> Result<(Self, Option<Credentials>), SourceError> {
        let text = text.trim();
        let unsupported = |why: &str| SourceError::UnsupportedUrl { url: redact(text), why: why.to_owned() };
        if text.is_empty() {
            return Err(unsupported("it is empty"));
        }
        if text.len() > 2048 || text.chars().any(char::is_control) {
            return Err(unsupported("it is over-long or has control characters"));
        }
        let Some((scheme, _)) = text.split_once("://") else {
            return match text.split_once(':') {
                // `git@host:path`, unless a slash before the colon makes it a path, as git reads it.
                Some((host, _)) if !host.contains('/') => Err(unsupported(SSH)),
                _ => Ok((Self::local(PathBuf::from(text)), None)),
            };
        };
        let mut url = reqwest::Url::parse(text).map_err(|error| unsupported(&error.to_string()))?;
        let transport = match scheme.to_ascii_lowercase().as_str() {
            "file" => {
                let path =
                    url.to_file_path().map_err(|()| unsupported("a file URL is file:///absolute/path"))?;
                return Ok((Self::local(path), None));
            }
            "git" => Transport::Git,
            "http" | "https" => Transport::Http,
            "ssh" | "git+ssh" | "ssh+git" => return Err(unsupported(SSH)),
            _ => return Err(unsupported("its scheme is none of https, http, git and file")),
        };
        if url.host_str().is_none_or(str::is_empty) {
            return Err(unsupported("it names no host"));
        }
        let credentials = embedded(&url);
        // Both cannot fail: the URL has a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_fragment(None);
        let address = url.as_str().trim_end_matches('/').to_owned();
        Ok((Self { transport, address }, credentials))
    }

    fn local(path: PathBuf) -> Self {
        Self { transport: Transport::Local, address: path.to_string_lossy().into_owned() }
    }

    /// How it is reached.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// What libgit2 is given.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Where it is on this machine, if it is.
    pub(crate) fn local_path(&self) -> Option<&Path> {
        (self.transport == Transport::Local).then(|| Path::new(&self.address))
    }

    /// The same for all spellings that mean one repository: what webhooks are matched by.
    pub fn identity(&self) -> String {
        identity(&self.address)
    }
}

impl fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

const SSH: &str = "SSH is not supported yet; use the https address with a token in the secret (keys `username` and \
                   `password`, or `bearerToken`)";

/// Host and path of an address, without scheme, user, port and `.git`, in lower case, so that the
/// `https`, `ssh` and `git@` spellings that a webhook may send are equal. Two repositories that
/// collide only cost a fetch too many.
pub(crate) fn identity(address: &str) -> String {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let rest = match rest.find('/') {
        Some(0) => rest.to_owned(),
        slash => {
            let (authority, path) = match slash {
                Some(at) => rest.split_at(at),
                None => (rest, ""),
            };
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            // `host:443` is a port, `host:owner` the beginning of an scp-like path.
            match host.split_once(':') {
                Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => format!("{host}{path}"),
                Some((host, first)) => format!("{host}/{first}{path}"),
                None => format!("{host}{path}"),
            }
        }
    };
    let rest = rest.trim_end_matches('/');
    rest.strip_suffix(".git").unwrap_or(rest).trim_end_matches('/').to_lowercase()
}

/// The URL without its user part, also when it does not parse.
pub(crate) fn redact(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let authority_ends = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_ends);
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}{path}"),
        None => text.to_owned(),
    }
}

fn embedded(url: &reqwest::Url) -> Option<Credentials> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let password = percent_decode(url.password().unwrap_or_default());
    let auth = Auth::Basic { username: percent_decode(url.username()), password: Secret::new(password) };
    Some(Credentials { auth: Some(auth), ca: None })
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let decoded = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high * 16 + low),
            _ => None,
        };
        rest = match decoded {
            Some(byte) => {
                bytes.push(byte);
                &tail[2..]
            }
            None => {
                bytes.push(*first);
                tail
            }
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_git_reads_them() {
        let cases = [
            ("/srv/shop.git", Transport::Local, "/srv/shop.git"),
            ("./shop.git", Transport::Local, "./shop.git"),
            ("dir/with:colon", Transport::Local, "dir/with:colon"),
            ("file:///srv/my%20shop", Transport::Local, "/srv/my shop"),
            ("git://host:9418/shop", Transport::Git, "git://host:9418/shop"),
            ("https://github.com/acme/shop.git", Transport::Http, "https://github.com/acme/shop.git"),
            ("HTTPS://GitHub.com/acme/shop/", Transport::Http, "https://github.com/acme/shop"),
        ];
        for (text, transport, address) in cases {
            let (url, credentials) = RepositoryUrl::parse(text).unwrap();
            assert_eq!((url.transport(), url.address()), (transport, address), "{text}");
            assert_eq!(credentials, None, "{text}");
        }
    }

    #[test]
    fn passwords_leave_the_address() {
        let (url, credentials) = RepositoryUrl::parse("https://me:p%40ss%2@host/shop").unwrap();
        assert_eq!(url.to_string(), "https://host/shop");
        let expected = Auth::Basic { username: "me".into(), password: Secret::new("p@ss%2".into()) };
        assert_eq!(credentials.unwrap().auth, Some(expected));
    }

    #[test]
    fn an_unsupported_address_says_what_to_do_and_keeps_its_password() {
        for (text, part) in [
            ("ssh://git:hunter2@host/shop", "SSH is not supported yet"),
            ("git@github.com:acme/shop.git", "SSH is not supported yet"),
            ("svn://u:hunter2@host/shop", "none of https"),
            ("https://u:hunter2@:80:80/", "https://"),
            ("file://host.example/x", "file:///"),
            ("", "empty"),
            ("https://a\nb", "control"),
        ] {
            let message = RepositoryUrl::parse(text).unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn one_repository_has_one_identity() {
        for text in [
            "https://GitHub.com/acme/Shop.git",
            "https://github.com:443/acme/shop",
            "ssh://git@github.com:22/acme/shop.git",
            "git@github.com:acme/shop.git",
            "git://github.com/acme/shop/",
        ] {
            assert_eq!(identity(text), "github.com/acme/shop", "{text}");
        }
        assert_eq!(identity("/srv/shop.git"), "/srv/shop");
        assert_eq!(identity("file:///srv/shop.git"), "/srv/shop");
        assert_ne!(identity("https://github.com/acme/shop2"), identity("https://github.com/acme/shop"));
    }
}
