//! The JSON schemas of cartridges, ready for use: to make one may cost tens of milliseconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};

use crate::api::values::{InvalidSchema, InvalidValues, Schema};

/// How many are kept.
const KEPT: usize = 1000;

/// The schemas that were made.
#[derive(Debug, Default)]
pub struct Schemas(Mutex<HashMap<String, Result<Arc<Schema>, InvalidSchema>>>);

/// Why values cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// They are not what the schema asks for.
    #[error(transparent)]
    Values(#[from] InvalidValues),
    /// The schema itself is wrong, which its Cartridge says.
    #[error("the cartridge's schema cannot be used: {0}")]
    Schema(#[from] InvalidSchema),
}

impl Schemas {
    /// Checks values by a schema; without one any fit.
    ///
    /// # Errors
    /// They do not fit, or the schema cannot be used.
    pub fn check(
        &self,
        schema: Option<&Map<String, Value>>,
        values: &Map<String, Value>,
    ) -> Result<(), Unfit> {
        let Some(schema) = schema else { return Ok(()) };
        let schema = self.schema(schema)?;
        Ok(schema.check(&Value::Object(values.clone()))?)
    }

    /// A schema, made or kept.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn schema(&self, schema: &Map<String, Value>) -> Result<Arc<Schema>, InvalidSchema> {
        let value = Value::Object(schema.clone());
        let key = value.to_string();
        let kept = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept().get(&key) {
            return known.clone();
        }
        let made = Schema::new(&value).map(Arc::new);
        let mut all = kept();
        if all.len() >= KEPT {
            all.clear();
        }
        all.insert(key, made.clone());
        made
    }
}
