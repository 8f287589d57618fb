//! What the argument of a command names. Pure.

/// Where the flag is that a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// The controller of this machine, by its file or by the URL of its flag service.
    Service(String),
    /// A VersionFlag of a cluster, by name.
    Named(String),
    /// All of a namespace, or of the cluster.
    All,
}

/// A URL has `://`; a path has a `/`, ends as YAML or JSON does, or is there; anything else is a name.
pub(super) fn place(argument: Option<&str>, is_file: bool) -> Place {
    let Some(text) = argument else { return Place::All };
    let ends = [".yaml", ".yml", ".json"].iter().any(|end| text.ends_with(end));
    // A URL has a slash, too.
    if text.contains('/') || ends || is_file { Place::Service(text.to_owned()) } else { Place::Named(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::nothing(None, false, Place::All)]
    #[case::url(Some("http://127.0.0.1:7070"), false, Place::Service("http://127.0.0.1:7070".to_owned()))]
    #[case::path(Some("flags/reviews"), false, Place::Service("flags/reviews".to_owned()))]
    #[case::here(Some("./reviews"), false, Place::Service("./reviews".to_owned()))]
    #[case::yaml(Some("reviews.yaml"), false, Place::Service("reviews.yaml".to_owned()))]
    #[case::yml(Some("reviews.yml"), false, Place::Service("reviews.yml".to_owned()))]
    #[case::json(Some("reviews.json"), false, Place::Service("reviews.json".to_owned()))]
    #[case::there(Some("reviews"), true, Place::Service("reviews".to_owned()))]
    #[case::name(Some("reviews"), false, Place::Named("reviews".to_owned()))]
    #[case::dots(Some("reviews.shop"), false, Place::Named("reviews.shop".to_owned()))]
    fn an_argument_names_a_place(#[case] argument: Option<&str>, #[case] is_file: bool, #[case] expected: Place) {
        assert_eq!(place(argument, is_file), expected);
    }
}
