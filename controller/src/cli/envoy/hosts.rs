//! Which virtual host of a route table serves a host, as Envoy chooses it. Pure.

use super::node::Node;

/// How well a domain fits a host: the kind of domain, then its length. Less is better.
type Rank = (u8, std::cmp::Reverse<usize>);

/// Envoy takes an exact domain, then the longest `*.example`, then the longest `example.*`, then `*`.
fn rank(domain: &str, host: &str) -> Option<Rank> {
    let (domain, host) = (domain.to_ascii_lowercase(), host.to_ascii_lowercase());
    let length = std::cmp::Reverse(domain.len());
    if domain == host {
        return Some((0, length));
    }
    if domain == "*" {
        return Some((3, length));
    }
    let fits = |rest: Option<&str>| rest.is_some_and(|rest| !rest.is_empty());
    if domain.strip_prefix('*').is_some_and(|end| fits(host.strip_suffix(end))) {
        return Some((1, length));
    }
    let is_start = domain.strip_suffix('*').is_some_and(|start| fits(host.strip_prefix(start)));
    is_start.then_some((2, length))
}

/// The virtual host that serves requests with exactly this `:authority`.
fn pick(virtual_hosts: &[Node], authority: &str) -> Option<usize> {
    let ranks = virtual_hosts.iter().enumerate().filter_map(|(index, one)| {
        let best = domains(one).filter_map(|domain| rank(domain, authority)).min()?;
        Some((best, index))
    });
    ranks.min().map(|(_, index)| index)
}

/// The domains of a virtual host.
pub(in crate::cli) fn domains(virtual_host: &Node) -> impl Iterator<Item = &str> {
    virtual_host.list_at("domains").iter().filter_map(|domain| domain.text_at(""))
}

/// A host or a domain without port and trailing dot, as filters compare them.
fn bare(domain: &str) -> &str {
    let host = match domain.rsplit_once(':') {
        Some((host, port)) if port == "*" || port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => domain,
    };
    host.strip_suffix('.').unwrap_or(host)
}

/// Whether a domain is that of a host in one of its spellings, and of no other host.
pub(in crate::cli) fn is_host(domain: &str, host: &str) -> bool {
    bare(domain).eq_ignore_ascii_case(bare(host))
}

/// Every virtual host that serves a host in one of its spellings: with a port, and with a dot at its end.
pub(in crate::cli) fn serving(virtual_hosts: &[Node], host: &str) -> Vec<usize> {
    let spellings = [host.to_owned(), format!("{host}:1"), format!("{host}."), format!("{host}.:1")];
    let mut all: Vec<usize> = spellings.iter().filter_map(|one| pick(virtual_hosts, one)).collect();
    let named = virtual_hosts.iter().enumerate();
    all.extend(named.filter(|(_, one)| domains(one).any(|domain| is_host(domain, host))).map(|(index, _)| index));
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::exact("reviews.example", &[0])]
    #[case::case_and_dot("Reviews.Example", &[0])]
    #[case::longest_suffix("a.shop.example", &[2, 4])]
    #[case::suffix("a.example", &[1, 4])]
    #[case::suffix_needs_something(".example", &[4])]
    #[case::prefix("intern.corp", &[3])]
    #[case::any("other", &[4])]
    #[case::with_a_port_of_its_own("ported.example", &[1, 4, 5])]
    fn a_host_is_served_by_whom_envoy_takes(#[case] host: &str, #[case] expected: &[usize]) {
        let hosts = json!([
            { "domains": ["REVIEWS.example", "reviews.example:*", "reviews.example.", "reviews.example.:*"] },
            { "domains": ["*.example"] },
            { "domains": ["*.shop.example"] },
            { "domains": ["intern.*"] },
            { "domains": ["*"] },
            { "domains": ["ported.example:8443"] },
        ]);
        assert_eq!(serving(Node::from(hosts).items(), host), expected);
    }
}
