//! What an operator chooses from a list. The first of each is the default. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $(#[$first_meta:meta])* $first:ident $(, $(#[$other_meta:meta])* $other:ident)* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
        pub enum $name { $(#[$first_meta])* #[default] $first $(, $(#[$other_meta])* $other)* }
    };
}

choice! {
    /// What a lack of headroom means.
    Headroom {
        /// The new version is not started.
        Require,
        /// It is started, and the lack logged.
        Warn,
        /// Nobody looks.
        Ignore,
    }
}
choice! {
    /// How many of the new version.
    Replicas {
        /// As many as of the active one.
        MatchActive,
        /// As many as its workloads say.
        AsDeclared,
    }
}
choice! {
    /// Whether proxies try to reach a new version before requests go there.
    ProbeMode {
        /// They do, and the flip waits for all of them.
        Require,
        /// They do not.
        None,
    }
}
choice! {
    /// Who lets the new version in.
    PromotionMode {
        /// The controller, when it is ready.
        Automatic,
        /// A person.
        Manual,
    }
}
choice! {
    /// How the flip is done.
    SwitchMode {
        /// At once.
        Immediate,
        /// Requests wait while the old version drains: no two versions have open streams at once.
        Fenced,
    }
}
choice! {
    /// What becomes of requests whose hold has run out in a proxy.
    OnExpiry {
        /// They go to the old version.
        Open,
        /// They are refused until the proxy hears of another record.
        Reject,
    }
}
choice! {
    /// Whether a fence needs proxies beside the workloads of both versions.
    InboundProxies {
        /// Those that are there take part.
        Optional,
        /// Every workload has one, or nothing is held.
        Required,
    }
}
choice! {
    /// What becomes of proxies that do not ack.
    Laggards {
        /// They are waited for.
        Wait,
        /// After the deadline the switch goes on without them.
        Proceed,
    }
}
choice! {
    /// What to do when traffic does not settle in time.
    OnTimeout {
        /// Say so, and go on waiting.
        Wait,
        /// Go on although requests are still open on the old version.
        Proceed,
        /// Back to the old version.
        Rollback,
    }
}
choice! {
    /// What becomes of the old version.
    CleanupPolicy {
        /// Stopped.
        ScaleToZero,
        /// Stopped and deleted.
        Delete,
        /// Kept.
        Retain,
    }
}
choice! {
    /// Who carries out the routes.
    Provider {
        /// Istio.
        Istio,
        /// Istio, by routes of the Gateway API.
        GatewayAPI,
        /// Envoys that read files.
        External,
    }
}
choice! {
    /// Who writes the routes.
    Management {
        /// The controller.
        Managed,
        /// You.
        UserProvided,
    }
}
choice! {
    /// What to do when the new version fails after the flip.
    TargetFailureAction {
        /// Say so.
        Wait,
        /// Back to the old version.
        Rollback,
    }
}
choice! {
    /// When a check is asked.
    When {
        /// From the flip until the old version is removed.
        AfterFlip,
        /// While the new version is ready and waits to be let in.
        BeforeFlip,
    }
}
choice! {
    /// What to do when a check fails.
    OnFail {
        /// Back to the old version, until the spec asks for another one.
        Rollback,
        /// Nothing moves on while it fails.
        Pause,
    }
}
