//! `versionflag uninstall --check`: what of the product is still in a cluster, in the order in which it goes without a
//! failed request. I/O: terminal, the Kubernetes API.

use std::fmt::Write;
use std::process::ExitCode;

use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client, ResourceExt};
use serde::Serialize;

use super::args::{Output, Uninstall};
use super::kube_api::Cluster;
use super::terminal::{print, print_json};
use cluster::names::{MANAGED_BY, MANAGER};

/// Which objects of a kind are the product's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    All,
    /// Those with the label of what the controller writes.
    Written,
    /// Those whose names begin with the product's.
    Named,
    /// The one that the controller lives in.
    Namespace,
}

/// A kind of which something may be there.
struct Sort {
    step: usize,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    own: Own,
}

const fn sort(
    step: usize,
    (group, version): (&'static str, &'static str),
    kind: &'static str,
    plural: &'static str,
    own: Own,
) -> Sort {
    Sort { step, group, version, kind, plural, own }
}

const ADMISSION: (&str, &str) = ("admissionregistration.k8s.io", "v1");
const RBAC: (&str, &str) = ("rbac.authorization.k8s.io", "v1");
const ISTIO: (&str, &str) = ("networking.istio.io", "v1");
const PLUGINS: (&str, &str) = ("extensions.istio.io", "v1alpha1");

/// What is looked for. What leads goes before what it leads to.
const SORTS: [Sort; 14] = [
    sort(0, ADMISSION, "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", Own::Named),
    sort(0, ADMISSION, "ValidatingAdmissionPolicy", "validatingadmissionpolicies", Own::Named),
    sort(1, ("versionflag.io", "v1alpha1"), "VersionFlag", "versionflags", Own::All),
    sort(2, ISTIO, "VirtualService", "virtualservices", Own::Written),
    sort(2, ("gateway.networking.k8s.io", "v1"), "HTTPRoute", "httproutes", Own::Written),
    sort(3, ISTIO, "DestinationRule", "destinationrules", Own::Written),
    sort(3, ("", "v1"), "Service", "services", Own::Written),
    sort(4, PLUGINS, "TrafficExtension", "trafficextensions", Own::Written),
    sort(4, PLUGINS, "WasmPlugin", "wasmplugins", Own::Written),
    sort(5, ("", "v1"), "ConfigMap", "configmaps", Own::Written),
    sort(6, ("", "v1"), "Namespace", "namespaces", Own::Namespace),
    sort(6, RBAC, "ClusterRoleBinding", "clusterrolebindings", Own::Named),
    sort(6, RBAC, "ClusterRole", "clusterroles", Own::Named),
    sort(6, ("apiextensions.k8s.io", "v1"), "CustomResourceDefinition", "customresourcedefinitions", Own::All),
];

/// What has to be so before each step.
const STEPS: [&str; 7] = [
    "what protects workloads, before the definition of VersionFlags",
    "flags, when no switch is under way and one version runs alone",
    "routes; VirtualServices that delegate lead to the Service itself before",
    "what routes led to, when all proxies have lost the routes, in 10 s or so",
    "the filter",
    "files of proxies, when nobody reads them",
    "the controller with its namespace, its rights, and the definition of VersionFlags",
];

/// An object that is still there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Left {
    #[serde(skip)]
    step: usize,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    name: String,
    /// What takes it away.
    command: String,
}

pub(super) async fn run(options: &Uninstall) -> anyhow::Result<ExitCode> {
    let cluster = Cluster::connect(&options.cluster, true).await?;
    cluster.reach().await?;
    let (mut left, mut unread) = (vec![], vec![]);
    for sort in &SORTS {
        match look(cluster.client(), sort).await {
            Ok(found) => left.extend(found),
            Err(error) => unread.push(format!("{} cannot be read: {error}", sort.plural)),
        }
    }
    match options.output {
        Output::Json => print_json(&serde_json::json!({ "left": left, "unread": unread }))?,
        Output::Text => print(&text(&left, &unread))?,
    }
    let done = left.is_empty() && unread.is_empty();
    Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The objects of a kind, of all namespaces. A kind that the cluster does not have has none.
async fn look(client: Client, sort: &Sort) -> Result<Vec<Left>, kube::Error> {
    let kind = GroupVersionKind::gvk(sort.group, sort.version, sort.kind);
    let api: Api<DynamicObject> = Api::all_with(client, &ApiResource::from_gvk_with_plural(&kind, sort.plural));
    let labels = format!("{MANAGED_BY}={MANAGER}");
    let parameters =
        if sort.own == Own::Written { ListParams::default().labels(&labels) } else { ListParams::default() };
    match api.list_metadata(&parameters).await {
        Ok(found) => {
            let names = found.items.iter().map(|one| (one.namespace(), one.name_any()));
            Ok(names.filter_map(|(namespace, name)| left(sort, namespace, name)).collect())
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(vec![]),
        Err(error) => Err(error),
    }
}

/// The object, if it is the product's. Pure.
fn left(sort: &Sort, namespace: Option<String>, name: String) -> Option<Left> {
    let own = match (sort.own, sort.kind) {
        (Own::All, "CustomResourceDefinition") => name == "versionflags.versionflag.io",
        (Own::Namespace, _) => name == MANAGER,
        (Own::Named, _) => name == MANAGER || name.starts_with(&format!("{MANAGER}-")),
        _ => true,
    };
    let place = namespace.as_ref().map(|namespace| format!(" -n {namespace}")).unwrap_or_default();
    let group = if sort.group.is_empty() { String::new() } else { format!(".{}", sort.group) };
    let command = format!("kubectl delete {}{group} {name}{place}", sort.plural);
    own.then_some(Left { step: sort.step, kind: sort.kind, namespace, name, command })
}

/// What people read. Pure.
fn text(left: &[Left], unread: &[String]) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let mut number = 0;
    for (step, before) in STEPS.iter().enumerate() {
        let mut of_step = left.iter().filter(|one| one.step == step).peekable();
        if of_step.peek().is_some() {
            number += 1;
            let _ = writeln!(text, "{number}. {before}");
        }
        for one in of_step {
            let _ = writeln!(text, "     {}", one.command);
        }
    }
    for one in unread {
        let _ = writeln!(text, "! {one}");
    }
    if text.is_empty() {
        text.push_str(
            "✓ nothing is left, but for labels of namespaces and a controller in a namespace of another name\n",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &str, namespace: Option<&str>, name: &str) -> Option<Left> {
        let sort = SORTS.iter().find(|sort| sort.kind == kind)?;
        left(sort, namespace.map(str::to_owned), name.to_owned())
    }

    // C12
    #[test]
    fn what_is_left_is_listed_in_the_order_in_which_it_goes() {
        let all = [
            of("Namespace", None, "versionflag"),
            of("Namespace", None, "versionflag-tests"),
            of("CustomResourceDefinition", None, "versionflags.versionflag.io"),
            of("CustomResourceDefinition", None, "others.example"),
            of("DestinationRule", Some("shop"), "versionflag-reviews"),
            of("VirtualService", Some("shop"), "versionflag-reviews"),
            of("VersionFlag", Some("shop"), "reviews"),
            of("ValidatingAdmissionPolicy", None, "versionflag-protect"),
            of("ClusterRole", None, "versionflags-of-others"),
        ];
        let left: Vec<Left> = all.into_iter().flatten().collect();
        let text = text(&left, &["services cannot be read: you may not".to_owned()]);
        let lines: Vec<&str> =
            text.lines().filter(|line| !line.starts_with(|one: char| one.is_ascii_digit())).collect();
        let expected = [
            "     kubectl delete validatingadmissionpolicies.admissionregistration.k8s.io versionflag-protect",
            "     kubectl delete versionflags.versionflag.io reviews -n shop",
            "     kubectl delete virtualservices.networking.istio.io versionflag-reviews -n shop",
            "     kubectl delete destinationrules.networking.istio.io versionflag-reviews -n shop",
            "     kubectl delete namespaces versionflag",
            "     kubectl delete customresourcedefinitions.apiextensions.k8s.io versionflags.versionflag.io",
            "! services cannot be read: you may not",
        ];
        assert_eq!(lines, expected);
        assert!(super::text(&[], &[]).starts_with("✓ nothing is left"));
        assert!(SORTS.iter().all(|sort| sort.step < STEPS.len()));
    }
}
