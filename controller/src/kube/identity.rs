//! Which pod a token belongs to, as the API server vouches for it. I/O: TokenReview.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::{Api, Client};
use sha2::{Digest, Sha256};

use crate::service::{Senders, lock};

/// The audience that a proxy's token has to be for.
pub const AUDIENCE: &str = "versionflag";
/// A pod that was deleted goes on being believed for this long.
const BELIEVED: Duration = Duration::from_secs(60);
/// Answers that are remembered.
const REMEMBERED: usize = 16_384;

type Known = Arc<Mutex<HashMap<[u8; 32], (Instant, String)>>>;

/// Senders that show a token of their pod.
pub fn senders(client: Client) -> Senders {
    let known = Known::default();
    Senders::Reviewed(Box::new(move |token| {
        let (client, known, token) = (client.clone(), Arc::clone(&known), token.to_owned());
        Box::pin(async move {
            let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
            if let Some(proxy) = remembered(&known, &key) {
                return Ok(proxy);
            }
            let proxy = review(client, token).await?;
            let mut known = lock(&known);
            known.retain(|_, (at, _)| at.elapsed() < BELIEVED);
            if known.len() < REMEMBERED {
                known.insert(key, (Instant::now(), proxy.clone()));
            }
            Ok(proxy)
        })
    }))
}

fn remembered(known: &Known, key: &[u8; 32]) -> Option<String> {
    lock(known).get(key).filter(|(at, _)| at.elapsed() < BELIEVED).map(|(_, proxy)| proxy.clone())
}

async fn review(client: Client, token: String) -> Result<String, String> {
    let spec = TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token: Some(token) };
    let ask = TokenReview { metadata: ObjectMeta::default(), spec, status: None };
    let answer = Api::<TokenReview>::all(client).create(&PostParams::default(), &ask).await;
    let status = answer.map_err(|error| format!("it cannot be reviewed: {error}"))?.status.unwrap_or_default();
    if status.authenticated != Some(true) {
        return Err(status.error.unwrap_or_else(|| format!("it is not one for the audience {AUDIENCE}")));
    }
    pod(&status.user.unwrap_or_default())
}

/// `POD.NAMESPACE` of a pod-bound token.
fn pod(user: &UserInfo) -> Result<String, String> {
    let name = || user.username.as_deref().unwrap_or_default();
    let namespace = name().strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let pod = user.extra.as_ref().and_then(|extra| extra.get("authentication.kubernetes.io/pod-name")?.first());
    match (pod, namespace) {
        (Some(pod), Some((namespace, _))) => Ok(format!("{pod}.{namespace}")),
        _ => Err(format!("it is the token of {:?}, and bound to no pod", flag::shortened(name()))),
    }
}
