//! What the argument of a command names. Pure.

/// Where the flag is that a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// The controller of this machine, by its file or by the URL of its flag service.
    Service(String),
    /// A VersionFlag of a cluster, by name.
    Named(String),
    /// All of a namespace, or of the cluster.
    All,
}

/// A URL has `://`; a path has a `/`, ends as YAML or JSON does, or is there; anything else is a name.
pub(super) fn place(argument: Option<&str>, is_file: bool) -> Address {
    let Some(text) = argument else { return Address::All };
    let ends = [".yaml", ".yml", ".json"].iter().any(|end| text.ends_with(end));
    // A URL has a slash, too.
    if text.contains('/') || ends || is_file {
        Address::Service(text.to_owned())
    } else {
        Address::Named(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::nothing(None, false, Address::All)]
    #[case::url(Some("http://127.0.0.1:7070"), false, Address::Service("http://127.0.0.1:7070".to_owned()))]
    #[case::path(Some("flags/reviews"), false, Address::Service("flags/reviews".to_owned()))]
    #[case::here(Some("./reviews"), false, Address::Service("./reviews".to_owned()))]
    #[case::yaml(Some("reviews.yaml"), false, Address::Service("reviews.yaml".to_owned()))]
    #[case::yml(Some("reviews.yml"), false, Address::Service("reviews.yml".to_owned()))]
    #[case::json(Some("reviews.json"), false, Address::Service("reviews.json".to_owned()))]
    #[case::there(Some("reviews"), true, Address::Service("reviews".to_owned()))]
    #[case::name(Some("reviews"), false, Address::Named("reviews".to_owned()))]
    #[case::dots(Some("reviews.shop"), false, Address::Named("reviews.shop".to_owned()))]
    fn an_argument_names_a_place(#[case] argument: Option<&str>, #[case] is_file: bool, #[case] expected: Address) {
        assert_eq!(place(argument, is_file), expected);
    }
}
