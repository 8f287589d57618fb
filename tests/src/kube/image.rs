//! The controller as its image runs it, without a container engine: the program and what the image's
//! base has, on a root file system that cannot be written, as the user of the Dockerfile, with the
//! arguments and the variables of the Deployment. I/O: makes a directory, runs `unshare`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{API, Cluster};
use crate::process::{Process, program};
use crate::root;

/// Libraries that `gcr.io/distroless/cc-debian12` has, by the start of their names.
const LIBRARIES: [&str; 5] = ["ld-linux-x86-64.so", "libc.so", "libgcc_s.so", "libm.so", "libstdc++.so"];
const ACCOUNT: &str = "var/run/secrets/kubernetes.io/serviceaccount";
/// In a mount namespace of its own, so that nothing has to be undone.
const RUN: &str = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec setpriv --no-new-privs -- \
                   chroot --userspec=\"$1\" --groups= \"$0\" \"${@:2}\"";

/// The word after `word` in the last stage of the Dockerfile.
fn instruction(word: &str) -> Result<String> {
    let text = fs::read_to_string(root().join("Dockerfile"))?;
    let stage = text.rsplit("\nFROM ").next().context("no stage")?;
    let found = stage.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
    Ok(found.with_context(|| format!("no {word} in the Dockerfile"))?.to_owned())
}

fn put(root: &Path, from: &Path, to: &Path) -> Result<()> {
    let to = root.join(to.strip_prefix("/").unwrap_or(to));
    fs::create_dir_all(to.parent().context("a parent")?)?;
    fs::copy(from, &to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Everything that is in the image.
fn fill(root: &Path) -> Result<()> {
    let file = program("versionflag")?;
    put(root, &file, Path::new("/versionflag"))?;
    let listed = Command::new("ldd").arg(&file).output()?;
    ensure!(listed.status.success(), "ldd: {}", String::from_utf8_lossy(&listed.stderr));
    let text = String::from_utf8(listed.stdout)?;
    let libraries: BTreeSet<&str> = text.split_whitespace().filter(|word| word.starts_with('/')).collect();
    for library in libraries {
        let name = library.rsplit('/').next().unwrap_or_default();
        ensure!(LIBRARIES.iter().any(|has| name.starts_with(has)), "the image has no {library}");
        put(root, Path::new(library), Path::new(library))?;
    }
    let trusted = Path::new("/etc/ssl/certs/ca-certificates.crt");
    put(root, trusted, trusted)?;
    fs::write(root.join("etc/passwd"), "nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n")?;
    Ok(())
}

/// The template of its pods in the Deployment.
fn template() -> Result<Value> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&fs::read_to_string(root().join("manifests/kubernetes/controller.yaml"))?)?;
    let deployment = documents.iter().find(|one| one["kind"] == "Deployment").context("a Deployment")?;
    Ok(deployment["spec"]["template"].clone())
}

/// A Pod of the Deployment, with the name and the address of a replica that is a process here: there the
/// API server asks it. Nobody schedules it, so that nobody else gives it an address.
pub async fn stands_for(cluster: &Cluster<'_>, identity: &str, address: &str) -> Result<Pod> {
    stands_for_with(cluster, identity, address, |_| {}).await
}

/// The same with more in it.
pub async fn stands_for_with(
    cluster: &Cluster<'_>,
    identity: &str,
    address: &str,
    edit: impl FnOnce(&mut Value),
) -> Result<Pod> {
    let mut pod = template()?;
    (pod["apiVersion"], pod["kind"]) = (json!("v1"), json!("Pod"));
    (pod["metadata"]["name"], pod["metadata"]["namespace"]) = (json!(identity), json!("versionflag"));
    pod["spec"]["schedulerName"] = json!("nobody");
    edit(&mut pod);
    cluster.apply(&pod.to_string()).await?;
    let pods: Api<Pod> = cluster.api("versionflag");
    let status = json!({ "status": {
        "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }],
        "podIP": address, "podIPs": [{ "ip": address }],
    } });
    Ok(pods.patch_status(identity, &PatchParams::default(), &Patch::Merge(status)).await?)
}

/// Starts the controller as the Pod of this name and address, with the account of the manifests.
pub async fn controller(cluster: &Cluster<'_>, pod: &str, address: &str) -> Result<Process> {
    let root = cluster.dir().file("image");
    fs::create_dir(&root)?;
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755))?;
    fill(&root)?;
    // What the kubelet puts there.
    let (token, authority) = cluster.token("versionflag", "versionflag").await?;
    fs::create_dir_all(root.join(ACCOUNT))?;
    for (name, text) in [("token", token.as_str()), ("ca.crt", &authority), ("namespace", "versionflag")] {
        fs::write(root.join(ACCOUNT).join(name), text)?;
    }
    let container = template()?["spec"]["containers"][0].take();
    let known = [("metadata.name", pod), ("metadata.namespace", "versionflag"), ("status.podIPs", address)];
    let variables = container["env"].as_array().context("an environment")?.iter().map(|variable| {
        let field = variable["valueFrom"]["fieldRef"]["fieldPath"].as_str();
        let of_field = |path| known.iter().find(|(field, _)| *field == path).map(|(_, value)| *value);
        let value = variable["value"].as_str().or_else(|| field.and_then(of_field)).context("a variable")?;
        Ok((variable["name"].as_str().context("a name")?.to_owned(), value.to_owned()))
    });
    let variables: Vec<(String, String)> = variables.collect::<Result<_>>()?;
    let arguments = container["args"].as_array().context("arguments")?.iter().filter_map(Value::as_str);
    let arguments = arguments.map(|argument| {
        variables.iter().fold(argument.to_owned(), |text, (name, value)| text.replace(&format!("$({name})"), value))
    });
    let entry: Vec<String> = serde_json::from_str(&instruction("ENTRYPOINT")?)?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation=private", "bash", "-c", RUN]).arg(&root).arg(instruction("USER")?);
    command.args(entry).args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("KUBERNETES_SERVICE_HOST", API.ip().to_string());
    command.env("KUBERNETES_SERVICE_PORT", API.port().to_string());
    command.envs(variables);
    Process::start(cluster.dir(), "controller", command)
}
