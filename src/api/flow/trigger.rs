//! What starts a Flow.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::schema;

/// One field of a schedule: numbers and signs, and the words that cron knows. `every five minutes of day` has five words
/// too.
const CRON_FIELD: &str =
    "([0-9*/,?#LW-]|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC|SUN|MON|TUE|WED|THU|FRI|SAT)+";
/// The zones of the IANA database without a `/`. New ones get one, so the list is complete; it holds no `Local`, which is
/// the operator's own zone, and no `CEST` or `PST`, which are none.
const ZONES: &str = "UTC|GMT|GMT[+-]?0|UCT|Universal|Zulu|Greenwich|CET|MET|EET|WET|EST|MST|HST|EST5EDT|CST6CDT|MST7MDT|\
                     PST8PDT|Cuba|Egypt|Eire|GB|GB-Eire|Hongkong|Iceland|Iran|Israel|Jamaica|Japan|Kwajalein|Libya|NZ|\
                     NZ-CHAT|Navajo|PRC|Poland|Portugal|ROC|ROK|Singapore|Turkey|W-SU";

/// What starts a run: exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.cron) != has(self.webhook)",
    "`trigger` must have exactly one of `cron` and `webhook`",
))]
pub struct Trigger {
    /// Starts the flow at set times. Absent: another trigger is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<Cron>,
    /// Starts the flow with each HTTP request to `/hook/NAMESPACE/NAME` of the gateway. Absent: another
    /// trigger is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
}

/// Starts the flow at set times.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cron {
    /// The times, in cron's form: minute, hour, day of month, month, day of week, for example `*/3 * * * *`
    /// or `0 6 * * MON-FRI`. With six fields the first is the second, for example `*/10 * * * * *`. Or one of
    /// `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly` and `@annually`.
    #[schemars(length(max = 256))]
    #[x_kube(validation = (
        "!self.matches('^(CRON_)?TZ=')",
        "`schedule` must not begin with `TZ=` or `CRON_TZ=`: put the time zone into `timeZone`",
    ))]
    #[x_kube(validation = schema::rule(
        format!(
            "self.matches('^(CRON_)?TZ=') || self.matches('^@(hourly|daily|weekly|monthly|yearly|annually)$') || \
             self.matches('(?i)^{CRON_FIELD}( +{CRON_FIELD}){{4,5}}$')"
        ),
        "`schedule` must have five fields (minute, hour, day of month, month, day of week), such as `*/3 * * * *`, or \
         six with the second first, or be one of @hourly, @daily, @weekly, @monthly, @yearly and @annually",
    ))]
    #[x_kube(validation = (
        "!self.matches('(^|[^0-9])0*([6-9][0-9]|[0-9]{3,})|/0+([^0-9]|$)')",
        "`schedule` must have numbers that its fields can take, such as `*/15 8-18 * * *`: none is above 59, and no step is 0",
    ))]
    pub schedule: String,
    /// The time zone of `schedule`, by its name in the IANA database, for example `Europe/Berlin`. Absent:
    /// `UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = schema::rule(
        format!("self.matches('^([A-Z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){{1,2}}|{ZONES})$')"),
        "`timeZone` must be a name of the IANA database such as `Europe/Berlin` or `UTC`",
    ))]
    pub time_zone: Option<String>,
    /// How late a run may start, in seconds, for example after an outage; a run that is later is skipped.
    /// Absent: however late, the last missed run is made up; earlier ones are skipped. Example: `300`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub starting_deadline_seconds: Option<i32>,
}

/// Starts the flow with each HTTP request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// The methods that start the flow, for example `[POST]`; others are answered with 405. The body of a
    /// POST, or the query of a GET, becomes the `body` of the message.
    #[schemars(length(min = 1, max = 2))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub methods: Vec<Method>,
    /// The largest body of a request in bytes; a larger one is answered with 413. Absent: 1048576, which is
    /// also the most. Example: `65536`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub max_body_bytes: Option<i32>,
}

/// A method of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(transform = schema::undescribed)]
pub enum Method {
    /// The query becomes the message.
    Get,
    /// The body becomes the message.
    Post,
}
