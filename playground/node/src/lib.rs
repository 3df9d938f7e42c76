//! A node that runs pods as local processes, and the Ingress in front of them.
//!
//! It is an ordinary API client, as kubelet is. What differs from a node with containers, and how:
//!
//! - An image stands for a program of this machine ([`ImageMap`]); an image that no entry knows is
//!   `ErrImagePull`, then `ImagePullBackOff`.
//! - Each pod has a loopback address of its own. The program must bind to it, which it learns from an environment
//!   variable with `fieldRef: status.podIP`, or from [`Program::env`] (`$(POD_IP)`).
//! - There are no mounts. A `mountPath` is replaced by the volume's local folder wherever it appears as a whole
//!   path in environment values, command, arguments or working directory.
//! - A readiness, liveness or startup probe that finds nobody listening right after the start asks again after
//!   5 ms, 10 ms, 20 ms and so on up to its period, so that quick programs are ready quickly.
//! - Requests and limits are shown and scheduled by, not enforced. Security contexts are not applied.
//!
//! Nothing is left behind: every process is in a group that ends with its leader, and a watchdog kills all groups
//! when the node dies, even by SIGKILL. [`reap`] finds what might survive both.

mod backoff;
mod command;
mod config;
mod container;
mod context;
mod environment;
mod error;
mod expand;
mod fields;
mod images;
mod logs;
mod node;
mod pod;
mod probe;
mod prober;
mod process;
mod proxy;
mod register;
mod rewrite;
mod sessions;
mod status;
mod terminal;
mod tokens;
mod usage;
mod volumes;

pub use config::Config;
pub use error::Error;
pub use images::{ImageMap, Program};
pub use logs::{LogOptions, Logs};
pub use node::Node;
pub use process::reap;
pub use sessions::{Exec, ExecOptions, Sessions};
pub use terminal::Terminal;
pub use usage::{ContainerUsage, PodUsage, Usage};
