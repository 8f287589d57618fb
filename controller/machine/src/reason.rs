//! Why a flag does not move on, or what a condition says of it: one word for each, with its meaning and
//! what ends it. Pure. `docs/reference/reasons.md` is made from this file.

use std::fmt;

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};

/// Which words belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// The switch itself waits.
    Switch,
    /// Something in the cluster has to be put right.
    Cluster,
    /// Something is wrong with the routes.
    Routes,
    /// A condition of the resource says so; nothing is wrong with most of them.
    Condition,
}

macro_rules! reasons {
    ($($group:ident { $($name:ident: $meaning:literal, $end:literal;)* })*) => {
        /// One word that says why, as it stands in conditions, Events, the audit log and what `status` prints.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, EnumString,
            IntoStaticStr, VariantArray,
        )]
        #[serde(from = "String")]
        pub enum Reason {
            $($(#[doc = $meaning] $name,)*)*
            /// A word that another version of the controller has written, and this one does not know.
            Other,
        }

        impl Reason {
            /// What it means, in a sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $($(Reason::$name => $meaning,)*)*
                    Reason::Other => "Another version of the controller has written a word that this one does not know.",
                }
            }

            /// What ends it, in a sentence; empty where nothing has to end.
            pub fn end(self) -> &'static str {
                match self {
                    $($(Reason::$name => $end,)*)*
                    Reason::Other => "",
                }
            }

            /// What it is about.
            pub fn group(self) -> Group {
                match self {
                    $($(Reason::$name)|* => Group::$group,)*
                    Reason::Other => Group::Condition,
                }
            }
        }
    };
}

reasons! {
    Switch {
        Suspended: "The flag is suspended, by `spec.suspend` or by `suspend`: nothing moves, but a rollback.",
            "`resume`, or `spec.suspend: false`.";
        InvalidSpec: "The spec as it was edited last is not valid, or makes no record; the one before stays in force, if there was one.",
            "An edit that puts right what the message names.";
        UnknownVersion: "The version that is asked for has no workloads, or no entry in `local.versions`.",
            "Create its workloads, or ask for another version.";
        ActiveNotReady: "The version that requests go to, or would at the beginning, is not at full strength, or does not run.",
            "It gets ready: the message says what it lacks, or how it ended. At the beginning: `spec.version` names what serves.";
        HeadroomShort: "There is no room for the new version beside the active one.",
            "Room is made, or `coexistence.headroom` is set to Warn or Ignore.";
        HeadroomUnknown: "Nobody can tell whether there is room for the new version.",
            "Rights to read nodes and quotas, or `coexistence.headroom` Warn or Ignore.";
        TargetExited: "The new version was started and does not stay up.",
            "It stays up (on one machine `versionflag logs` has what it printed); before the flip `abort`, after it `rollback`.";
        NotStarted: "A version is not started: somebody else listens on its address, or what runs there cannot be adopted.",
            "What the message says is done about that process; or the version gets another `address`, or `adopt`.";
        TargetNotReady: "The new version has not become ready in time, or is not ready any more.",
            "It gets ready; before the flip `abort`, after it `rollback`.";
        TargetWeak: "The new version has fewer pods than the active one, which has what the traffic of now needs.",
            "It gets as many, or `coexistence.replicas` is set to AsDeclared; where an autoscaler keeps it small, its lower bound.";
        ChangedInPlace: "What made the version that serves makes the new one now: its pods are replaced in place, which no flag decides.",
            "The label of its pod template is put back, and the new version gets a workload of its own; it also ends when nothing of the version that served is left.";
        AwaitingPromotion: "The new version is ready and waits for a person, by `promotion.mode: Manual`.",
            "`promote`, or `abort`.";
        CheckFailed: "A check of the spec failed, and its `onFail` is Pause.",
            "The check passes, or `abort` or `rollback`.";
        ChecksInconclusive: "A check of the spec has neither passed nor failed for 30 seconds: no answer is no pass.",
            "An answer: the message says why there is none.";
        RoutesNotProven: "Before the flip: the routes of at least one proxy do not lead to the new version yet.",
            "The proxies get the routes; the message names them.";
        NotReached: "At least one worker of a proxy has not reached the new version, or does not any more.",
            "Each named proxy reaches it, or is no caller (`spec.callers`); or `coexistence.probe` asks for what the version answers, or has mode None.";
        FenceUnable: "In mode Fenced: at least one proxy does not show yet that it can hold requests, or for how long streams are open.",
            "Each named proxy gets the filter of this release, or is no caller (`spec.callers`); or `switch.mode: Immediate`.";
        NoInbound: "`switch.fence.inbound: Required`: a workload of one of both versions has no proxy beside it that has to ack.",
            "The named workloads get one; or `switch.fence.inbound: Optional`.";
        LongStreams: "In mode Fenced: a stream has been open on the old version for longer than half of `switch.fence.maxHold`, in which it has to drain.",
            "The stream ends; or `switch.fence.maxHold` is set to more than twice as long as such streams are open, or `switch.mode: Immediate` lets them end beside the new version.";
        FenceTurn: "Another flag holds requests of the same callers: fences that share callers go one after the other.",
            "It passes by itself, when that one is over.";
        FenceAborted: "Requests were held as often as `switch.fence.attempts` says, and given back each time.",
            "What the message names is put right (requests that take longer than half of `switch.fence.maxHold` need a longer one), and `retry` or `promote` tries again; or `abort`.";
        Laggards: "At least one proxy that has to ack the record has not, or none is known that has to.",
            "Each named proxy acks, or is gone or no longer listed; after `switch.ackTimeout` `switch.laggards` decides.";
        ConfigLaggards: "At least one proxy would start anew with a configuration from before the flip.",
            "Each named proxy gets the new configuration; its log says why if it refuses it.";
        RouteLaggards: "After the flip: at least one proxy has shown a route that does not fit the record.",
            "Each named proxy gets the routes.";
        QuietUnknown: "It is not known whether the old version still gets requests.",
            "Every proxy that has to ack reports completely, and has sent on what is open there.";
        FilterCameLate: "A proxy got the filter while it ran, and may have connections from before, of which the filter sees nothing.",
            "`settle.drainTime` after the filter came to it.";
        CallersWithoutFilter: "Requests still reach the old version that no filter sent there.",
            "Those callers get the filter, or stop.";
        PastTheFlag: "Requests have gone to the old version by a route or a host that the flag does not move.",
            "The named routes are put right, or their hosts are added to those of the flag (on one machine `versionflag render envoy --into` writes the routes, and `doctor` names the hosts), and the proxy sees a request to the same place go another way; or it is started anew.";
        NotQuiet: "Requests are open on the old version, or some were sent lately.",
            "They end; with `settle.onTimeout` Proceed or Rollback `settle.timeout` ends the wait.";
        CallsItself: "Only pods of the old version call it still: members of a group go to their own version as long as they run.",
            "They stop; or `settle.onTimeout: Proceed` goes past them after `settle.timeout`. Rollback does not: nobody outside is served by the old version.";
        EpochAhead: "The next epoch would be more than a day ahead of the clock, because a proxy reports, or the status has, one as late as that.",
            "The clock is put right, or the proxies that report it are started anew.";
    }
    Cluster {
        ServiceTaken: "An older VersionFlag of the namespace has a Service of this one.",
            "Take the Service out of one of both.";
        HostTaken: "Another VersionFlag that the same proxies are sent has a host of this one.",
            "Take the host out of one of both, or put both Services into one VersionFlag.";
        NoConsent: "Another namespace, whose callers, gateways or hosts the flag asks for, has not agreed to it.",
            "Who may label that namespace sets `versionflag.io/callers` on it, as the message says; or another spec.";
        HeaderTaken: "An older VersionFlag asks for another routing header in a namespace of the same callers.",
            "Both use the same `spec.routing.header`.";
        TooWide: "The filter would be installed in Istio's root namespace, and so in all namespaces.",
            "Name the gateways there in `spec.callers.gateways`.";
        HostNetwork: "A proxy that has to ack has the address of its node, so that none of its reports is believed.",
            "It gets an address of its own, or is no caller any more (`spec.callers`).";
        CallersUnseen: "The spec names callers in namespaces that this controller does not look after: it would not wait for them.",
            "A controller of all namespaces, or those callers are taken out of the spec.";
        NotSupported: "The spec asks for what this controller cannot do.",
            "Another value: the message names it.";
        Workloads: "The Services and workloads are not such that versions can be told apart.",
            "What the message names is put right.";
        WatchStale: "What the controller knows of the cluster may be out of date: the API server has not answered a watch of a kind for 45 seconds.",
            "The API server answers, and the controller's account may watch the kinds that the message names.";
        Forbidden: "The API server does not let the controller do what the next step needs.",
            "The right that the message names: see the roles to opt into, in `manifests/kubernetes`.";
        PluginUnknown: "The controller does not know where the filter is, or it is not pinned by a digest.",
            "`--plugin-url` with a digest, or `--plugin-sha256`.";
        NewerController: "A newer controller has written the status, and this one does not understand it.",
            "Upgrade this controller.";
        UnreadableSpec: "The spec has what this controller does not understand.",
            "Upgrade the controller, or take that out of the spec.";
        StateNotWritten: "The state file cannot be written: nothing is decided any more, and what runs is kept running.",
            "Room on the disk, or the right to write there: it is tried again and again.";
        IstioUnknown: "The controller has not read Istio's objects yet.",
            "They are read, a moment after the start.";
        IstioMissing: "The cluster does not have Istio's kinds.",
            "Install Istio, or set `spec.routing.provider` to External.";
        IstioForbidden: "The controller may not read Istio's objects.",
            "Apply `manifests/kubernetes/istio`.";
        GatewayApiMissing: "The cluster does not have the kinds of the Gateway API.",
            "Install its CRDs, or set `spec.routing.provider` to Istio.";
    }
    Routes {
        RouteConflict: "A route of somebody else has the Service too, or leads past the flag; or a DestinationRule is not merged with the controller's.",
            "What the message says is done to that object.";
        InvalidGateway: "`spec.routing.gateways` does not say clearly which port a route leads to, or names a Gateway twice.",
            "An edit of the spec.";
        GatewayUnknown: "Nobody has written a status of the route of a Gateway: it does not exist, or is not Istio's.",
            "The Gateway is made, or the spec names another one.";
        GatewayRefused: "The Gateway does not accept the controller's route, or does not resolve it.",
            "What the Gateway's own message says.";
        RouteMissing: "`management: UserProvided`: a version has no route, no subset or no Service.",
            "Add what the condition RoutesReady shows.";
        RouteDefault: "`management: UserProvided`: requests without a version do not go to the active one.",
            "Change the default route as the condition RoutesReady shows.";
        RoutesNotWritten: "The API server refused the controller's routes.",
            "What its message says.";
        PluginNotWritten: "The API server refused the controller's plugin.",
            "What its message says.";
        FilesNotWritten: "The files of the proxies, or the ConfigMap with them, cannot be written.",
            "What its message says.";
        FilterUnusable: "The file of `filterConfig.wasm` is missing, damaged, or not the filter: proxies that start go on without it, by the default route.",
            "The file is put in its place: it is looked at again when it changes, and proxies read it without a restart.";
        OtherFlagUnread: "A flag of the same controller of one machine has not begun, because its file, or its state, is not valid: what proxies read of all flags stays as it is, or that one would disappear.",
            "What the message names is put right, or taken away: then the others go on by themselves.";
        RoutesPending: "There is no route yet that holds requests back from a new version.",
            "It passes by itself, some seconds after what the routes lead to was written.";
        RoutesWarming: "There is no route to the new version yet; the active one has its own.",
            "It passes by itself, some seconds after what the route leads to was written.";
    }
    Condition {
        Adopting: "The first version is taken over.", "";
        Stable: "One version serves, and nothing else is asked for.", "";
        Coexisting: "The new version is started beside the active one.", "";
        ProvingRoutes: "Proxies show that their routes lead to the new version.", "";
        Holding: "New requests wait, and the old version drains.", "";
        Committing: "Nothing is open on the old version, and requests wait until nothing can arrive there.", "";
        Switching: "The flag is flipped, and not every proxy has acked.", "";
        Settling: "All proxies acked, and the old version gets quiet.", "";
        Retaining: "The old version stays for a rollback, for `cleanup.retainFor`.", "";
        Removing: "The old version is stopped, and deleted where `cleanup.policy` asks for it.", "";
        Serving: "The version that the spec asks for serves. The message says so if a proxy is not known to know.", "";
        Overridden: "Another version is held although the spec asks for this one.",
            "`retry`, or a spec that asks for another version.";
        Written: "The controller's routes are written, and nothing leads past them.", "";
        Found: "Every version has a route of the operator's.", "";
        NotAsked: "It is asked only while a switch is under way.", "";
        Resolved: "No proxy has shown a route that does not fit, and no request has gone past the flag.", "";
        NotProven: "At least one proxy has shown a route that does not fit.", "The proxies get the routes: the message names one.";
        NoVersion: "No version serves yet.", "";
        Ready: "As much of the version serves as `coexistence.ready` asks for: by default all of it.", "";
        Exited: "The version does not stay up.", "The message says how it ended.";
        NotReady: "The version runs, and is not at full strength.", "The message says what it lacks.";
        NotRunning: "The version does not run.", "";
        Checked: "There was room for the new version, or `coexistence.headroom` let it start all the same.", "";
        NotChecked: "It is not known yet whether there is room for the new version.", "";
        NotNeeded: "Nothing has to be started.", "";
        NoChecks: "The spec has no checks.", "";
        Failed: "At least one check failed.", "The message says which, with its numbers.";
        Inconclusive: "At least one check has no answer, and none failed.", "The message says which.";
        Passed: "Every check that is asked now passed.", "";
        NoSwitch: "Nothing was switched yet, or the last switch was given up.", "";
        Removal: "Nothing is switched: a version is only removed.", "";
        Acked: "Every proxy sends new requests to the new version, or the message says how many are known to: some came since, or the switch went on without them, as `switch.laggards` asks.", "";
        NotFlipped: "The old version still serves.", "";
        Settled: "Nothing reaches the old version any more, or the switch went on all the same, as `settle.onTimeout` asks.", "";
        NotSwitched: "The old version may still get requests.", "";
        Leftovers: "A version of an earlier switch still has to be removed.", "";
        Removed: "The old version is stopped or deleted.", "";
        Retained: "The old version stays, as `cleanup.policy` asks.", "";
        Done: "Nothing of the old version has to be removed.", "";
        FieldManager: "Somebody else applies the number of pods too, and would undo what the controller does.",
            "Leave `replicas` out of what is applied, or ignore the field manager `versionflag`.";
    }
}

impl Reason {
    /// All words, in the order of their groups.
    pub const ALL: &'static [Reason] = Reason::VARIANTS;

    /// The word.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Whether it passes by itself in a moment, so that it is waited for and blocks nobody.
    pub fn passes(self) -> bool {
        matches!(self, Reason::RoutesPending | Reason::RoutesWarming)
    }

    /// Whether nothing may be flipped, scaled or removed while it lasts, but to go back: what the flag acts on may be
    /// somebody else's, or is not what the spec takes it for.
    pub fn holds(self) -> bool {
        matches!(
            self,
            Reason::InvalidSpec
                | Reason::ServiceTaken
                | Reason::HostTaken
                | Reason::NoConsent
                | Reason::HeaderTaken
                | Reason::TooWide
                | Reason::HostNetwork
                | Reason::CallersUnseen
                | Reason::NotSupported
                | Reason::Workloads
                | Reason::NewerController
                | Reason::UnreadableSpec
                | Reason::WatchStale
        )
    }

    /// Whether the flag is well and waits for a person.
    pub fn awaits_person(self) -> bool {
        matches!(self, Reason::AwaitingPromotion | Reason::Suspended)
    }

    /// Whether it lets the flag have no part in the plugins that others share with it.
    pub fn bars_plugin(self) -> bool {
        matches!(self, Reason::HeaderTaken | Reason::TooWide)
    }
}

impl From<String> for Reason {
    fn from(word: String) -> Reason {
        word.parse().unwrap_or(Reason::Other)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Characters of a sentence that is written down. Parts of it come from reports, routes and answers of others, and what
/// is written is refused where it is too long.
pub const SENTENCE: usize = 2_000;

/// As much of a text as is written down.
pub fn shortened(message: String, chars: usize) -> String {
    match message.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", message.get(..end).unwrap_or_default()),
        None => message,
    }
}

/// Something that keeps a flag from moving on, or has to be put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Why, in one word.
    pub reason: Reason,
    /// The same in one sentence, with names and numbers.
    pub message: String,
    /// What would put it right, as YAML; empty where the sentence suffices.
    pub fix: String,
    /// What it is about, by name: it is another matter when this changes. Numbers in the sentence are not.
    pub about: Vec<String>,
}

impl Problem {
    /// A problem that its sentence says how to put right. It is about all that the sentence says.
    pub fn new(reason: Reason, message: impl Into<String>) -> Problem {
        let message = message.into();
        Problem { reason, about: vec![message.clone()], message, fix: String::new() }
    }

    /// The same, about these names only.
    #[must_use]
    pub fn about<'a>(self, names: impl IntoIterator<Item = &'a str>) -> Problem {
        Problem { about: names.into_iter().map(str::to_owned).collect(), ..self }
    }

    /// Whether another one is the same matter, whatever its numbers are.
    pub fn is_matter_of(&self, other: &Problem) -> bool {
        self.reason == other.reason && self.about == other.about
    }

    /// The same with the YAML that would put it right.
    #[must_use]
    pub fn with_fix(self, fix: String) -> Problem {
        Problem { fix, ..self }
    }
}
