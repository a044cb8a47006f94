//! Pull, call, publish, ack: what agent and runner share.
