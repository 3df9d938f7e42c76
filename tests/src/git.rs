//! Repositories in trouble.

use std::path::Path;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Deletes a branch of a bare repository.
///
/// # Errors
///
/// When there is none.
pub fn delete_branch(bare: &Path, branch: &str) -> anyhow::Result<()> {
    let repository = git2::Repository::open_bare(bare)?;
    let mut reference = repository.find_reference(&format!("refs/heads/{branch}"))?;
    reference.delete().with_context(|| format!("branch {branch} cannot be deleted"))
}

/// A server that takes connections and never answers. Returns its address; it ends with the task.
///
/// # Errors
///
/// When no port can be had.
pub async fn silent_server() -> anyhow::Result<(std::net::SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
        }
    });
    Ok((address, server))
}
