//! What the manifests that people apply say, where more than a cluster's word rests on it.

use serde_json::Value;

// C12
#[test]
fn what_protects_workloads_harms_nobody_without_flags() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifests/kubernetes/protect/policy.yaml");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap();
    let [policy, binding] = documents.try_into().unwrap();
    // A kind that is gone would have every scale, update and delete in the cluster refused.
    assert_eq!(policy["spec"]["failurePolicy"], "Ignore");
    assert_eq!(binding["spec"]["paramRef"]["parameterNotFoundAction"], "Allow");
    // The request to delete a collection has no name.
    let variables = policy["spec"]["variables"].as_array().unwrap();
    let workload = variables.iter().find(|one| one["name"] == "workload").unwrap()["expression"].as_str().unwrap();
    assert!(workload.contains("oldObject.metadata.name") && !workload.contains("request.name"), "{workload}");
}
