//! A PostgreSQL server of one's own, where Debian's or another package is installed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;

use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tempfile::TempDir;
use webservice::Database;

/// A server that ends with the test.
pub struct Postgres {
    directory: TempDir,
    command: Command,
    server: Child,
    port: u16,
}

const USER: &str = "shop";

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Postgres {
    /// Starts a server, or says why there is none.
    pub async fn start() -> Result<Self, String> {
        Self::start_as(&[]).await
    }

    /// Starts a server that listens on `port` of the loopback address as well, with `server.crt` and `server.key`.
    pub async fn start_with_tls(files: &Path, port: u16) -> Result<Self, String> {
        let key = files.join("server.key");
        if is_root() {
            // The server reads its key itself, and insists on being the only one.
            let owned = Command::new("chown").arg("-R").arg("postgres").arg(files).status();
            owned.map_err(|error| error.to_string())?;
        }
        let file = |name: &str, path: &Path| format!("{name}={}", path.display());
        Self::start_as(&[
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            "ssl=on".to_owned(),
            file("ssl_cert_file", &files.join("server.crt")),
            file("ssl_key_file", &key),
        ])
        .await
    }

    async fn start_as(settings: &[String]) -> Result<Self, String> {
        let bin = programs().ok_or("no initdb found on PATH or under /usr/lib/postgresql")?;
        let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
        // PostgreSQL refuses to run as root; Debian's package has a user for it.
        let root = is_root();
        if root {
            let owned = Command::new("chown").arg("postgres").arg(directory.path()).status();
            if !owned.is_ok_and(|status| status.success()) {
                return Err("running as root and there is no user postgres".to_owned());
            }
        }
        let data = directory.path().join("data");
        let run = |program: &str| {
            let program = bin.join(program);
            if root {
                let mut command = Command::new("setpriv");
                command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
                command
            } else {
                Command::new(program)
            }
        };
        let made = run("initdb")
            .args(["--auth=trust", "--no-sync", "--username", USER, "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data)
            .current_dir(directory.path())
            .output()
            .map_err(|e| e.to_string())?;
        if !made.status.success() {
            return Err(format!("initdb failed: {}", String::from_utf8_lossy(&made.stderr)));
        }
        let mut command = run("postgres");
        command
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(directory.path())
            .args(["-c", "listen_addresses=", "-c", "fsync=off"])
            .args(settings.iter().flat_map(|setting| ["-c", setting.as_str()]))
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server = command.spawn().map_err(|e| e.to_string())?;
        let port = settings.iter().find_map(|setting| setting.strip_prefix("port=")?.parse().ok());
        let postgres = Self { directory, command, server, port: port.unwrap_or(5432) };
        postgres.answering().await;
        Ok(postgres)
    }

    /// Ends the server the hard way, as a failing machine would.
    pub fn stop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    /// Starts it again on the same data.
    pub async fn restart(&mut self) {
        // Its children notice the end of their parent by themselves; until then the new server refuses.
        let started = std::time::Instant::now();
        loop {
            self.server = self.command.spawn().unwrap();
            while self.server.try_wait().unwrap().is_none() {
                if PgConnection::connect_with(&self.options("postgres")).await.is_ok() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            assert!(started.elapsed() < super::DEADLINE, "PostgreSQL does not start again");
        }
    }

    async fn answering(&self) {
        super::eventually("PostgreSQL accepts connections", || async {
            PgConnection::connect_with(&self.options("postgres")).await.ok()
        })
        .await;
    }

    fn options(&self, database: &str) -> PgConnectOptions {
        let url = format!("postgres://{}@localhost/{database}", USER);
        PgConnectOptions::from_str(&url).unwrap().socket(self.directory.path()).port(self.port)
    }

    /// A new, empty database. `name` is the test's own.
    pub async fn database(&self, name: &'static str) -> Database {
        let mut connection = PgConnection::connect_with(&self.options("postgres")).await.unwrap();
        let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(create).execute(&mut connection).await.unwrap();
        Database::Postgres(Box::new(self.options(name)))
    }

    /// A URL for another process.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{}@localhost/{database}?host={}", USER, self.directory.path().display())
    }

    /// A connection beside the shop's.
    pub async fn connect(&self, database: &str) -> PgConnection {
        PgConnection::connect_with(&self.options(database)).await.unwrap()
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n")
}

fn programs() -> Option<PathBuf> {
    let has_both = |dir: &Path| dir.join("initdb").is_file() && dir.join("postgres").is_file();
    let on_path = std::env::split_paths(&std::env::var_os("PATH")?).find(|dir| has_both(dir));
    on_path.or_else(|| {
        let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
            .filter(|dir| has_both(dir))
            .collect();
        versions.sort();
        versions.pop()
    })
}
