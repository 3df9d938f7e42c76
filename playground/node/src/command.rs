//! The command line, environment and folder of a container's process.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::context::{Context, safe};
use crate::environment::{Facts, variables};
use crate::expand::expand;
use crate::images::Program;
use crate::names::Names;
use crate::process::Command;
use crate::rewrite::Mounts;

const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Builds the command of a container, and its scratch folder.
///
/// `command` replaces the program and its arguments, `args` the arguments alone. A `command` that names the image's
/// own program by another folder (`/usr/local/bin/webservice`) means the program of the image map.
///
/// # Errors
/// What is missing, in the words of kubelet's `CreateContainerConfigError`.
pub(crate) fn build(
    context: &Context,
    pod: &Pod,
    ip: Ipv4Addr,
    container: &Container,
    program: &Program,
    mounts: &Mounts,
) -> Result<Command, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let services = context.visible_services(namespace);
    let facts = Facts { pod, ip, services: &services, allocatable: &context.allocatable };
    let scratch = context.pod_folder(pod).join("containers").join(safe(&container.name));
    std::fs::create_dir_all(&scratch).map_err(|error| format!("{}: {error}", scratch.display()))?;
    let own_folder = program.path.parent().map(Path::display);
    let path = own_folder.map_or_else(|| SEARCH_PATH.to_owned(), |folder| format!("{folder}:{SEARCH_PATH}"));
    let mut env: Vec<(String, String)> = vec![
        ("PATH".to_owned(), path),
        ("HOME".to_owned(), scratch.display().to_string()),
        ("TMPDIR".to_owned(), scratch.display().to_string()),
        ("HOSTNAME".to_owned(), name.to_owned()),
    ];
    let address = ip.to_string();
    let facts_of_pod = |key: &str| match key {
        "POD_IP" => Some(address.as_str()),
        "POD_NAME" => Some(name),
        "POD_NAMESPACE" => Some(namespace),
        _ => None,
    };
    env.extend(program.env.iter().map(|(key, value)| (key.clone(), expand(value, facts_of_pod))));
    env.extend(variables(&facts, container, context)?);
    let all_services = context.services.all();
    let names = Names::new(namespace, &all_services);
    let local = |text: &str| mounts.rewrite(&names.rewrite(text));
    // The last value of a name counts, for the references below as for the process.
    let lookup = |key: &str| env.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    let words = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|word| local(&expand(word, lookup))).collect()
    };
    let (command, args) = (words(&container.command), words(&container.args));
    let (program_path, args) = match command.split_first() {
        Some((first, rest)) => (own_program(first, program), rest.iter().cloned().chain(args).collect()),
        None if container.args.as_ref().is_some_and(|args| !args.is_empty()) => (program.path.clone(), args),
        None => (program.path.clone(), program.args.clone()),
    };
    let wanted = container.working_dir.as_deref().map(|folder| PathBuf::from(mounts.rewrite(folder)));
    // A folder of the image does not exist here.
    let directory = wanted.filter(|folder| folder.is_dir()).unwrap_or(scratch);
    let env = env.into_iter().map(|(key, value)| {
        let value = local(&value);
        (key, value)
    });
    Ok(Command { program: program_path, args, env: env.collect(), directory })
}

fn own_program(first: &str, program: &Program) -> PathBuf {
    let path = Path::new(first);
    let same_name = path.file_name().is_some() && path.file_name() == program.path.file_name();
    if same_name && !path.exists() { program.path.clone() } else { path.to_owned() }
}
