//! The document that describes the API, OpenAPI 3.1, made from the endpoints themselves.

use axum::routing::MethodRouter;
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::Api;
use super::problem::Problem;

/// One way in, with what serves it and what describes it.
pub(super) struct Endpoint {
    method: &'static str,
    pub(super) path: &'static str,
    pub(super) router: MethodRouter<Api>,
    summary: &'static str,
    query: Option<Describe>,
    body: Option<Body>,
    answer: Answer,
}

type Describe = fn(&mut SchemaGenerator) -> Value;

enum Body {
    Json(Describe),
    Manifest,
}

enum Answer {
    None,
    Json(Describe),
    Stream(&'static str, Option<Describe>),
    Upgrade,
}

fn describe<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

/// The schema itself, not a reference to it: its properties become parameters.
fn describe_whole<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    T::json_schema(generator).to_value()
}

impl Endpoint {
    pub(super) fn new(method: &'static str, path: &'static str, router: MethodRouter<Api>) -> Self {
        Self { method, path, router, summary: "", query: None, body: None, answer: Answer::None }
    }

    pub(super) fn says(self, summary: &'static str) -> Self {
        Self { summary, ..self }
    }

    /// What stands behind the question mark.
    pub(super) fn asks<T: JsonSchema>(self) -> Self {
        Self { query: Some(describe_whole::<T>), ..self }
    }

    pub(super) fn takes<T: JsonSchema>(self) -> Self {
        Self { body: Some(Body::Json(describe::<T>)), ..self }
    }

    pub(super) fn takes_manifest(self) -> Self {
        Self { body: Some(Body::Manifest), ..self }
    }

    pub(super) fn gives<T: JsonSchema>(self) -> Self {
        Self { answer: Answer::Json(describe::<T>), ..self }
    }

    pub(super) fn streams(self, kind: &'static str) -> Self {
        Self { answer: Answer::Stream(kind, None), ..self }
    }

    pub(super) fn streams_each<T: JsonSchema>(self, kind: &'static str) -> Self {
        Self { answer: Answer::Stream(kind, Some(describe::<T>)), ..self }
    }

    pub(super) fn upgrades(self) -> Self {
        Self { answer: Answer::Upgrade, ..self }
    }

    fn parameters(&self, generator: &mut SchemaGenerator) -> Vec<Value> {
        let mut parameters = Vec::new();
        if self.path.contains("{name}") {
            let schema = json!({ "type": "string", "pattern": "^[a-z0-9-]{1,80}$" });
            parameters.push(json!({ "name": "name", "in": "path", "required": true, "schema": schema }));
        }
        let query = self.query.map(|describe| describe(generator)).unwrap_or_default();
        let required = |name: &str| {
            query["required"].as_array().is_some_and(|all| all.iter().any(|one| one.as_str() == Some(name)))
        };
        for (name, schema) in query["properties"].as_object().into_iter().flatten() {
            parameters
                .push(json!({ "name": name, "in": "query", "required": required(name), "schema": schema }));
        }
        parameters
    }

    fn operation(&self, generator: &mut SchemaGenerator) -> Value {
        let mut operation = json!({
            "summary": self.summary,
            "parameters": self.parameters(generator),
            "responses": self.responses(generator),
        });
        match &self.body {
            Some(Body::Json(describe)) => {
                let schema = describe(generator);
                let content = json!({ "application/json": { "schema": schema } });
                operation["requestBody"] = json!({ "required": true, "content": content });
            }
            Some(Body::Manifest) => {
                let text = json!({ "schema": { "type": "string" } });
                let content = json!({ "application/toml": text, "application/yaml": text });
                operation["requestBody"] = json!({ "required": true, "content": content });
            }
            None => {}
        }
        operation
    }

    fn responses(&self, generator: &mut SchemaGenerator) -> Value {
        let problem = json!({
            "description": "Why not",
            "content": { "application/problem+json": { "schema": describe::<Problem>(generator) } },
        });
        let (status, answer) = match &self.answer {
            Answer::None => ("204", json!({ "description": "Done" })),
            Answer::Json(describe) => {
                let schema = describe(generator);
                (
                    "200",
                    json!({ "description": "The answer", "content": { "application/json": { "schema": schema } } }),
                )
            }
            Answer::Stream(kind, each) => {
                let schema = match each {
                    Some(describe) => {
                        json!({ "description": "On each line", "anyOf": [describe(generator), { "type": "string" }] })
                    }
                    None => json!({ "type": "string" }),
                };
                ("200", json!({ "description": "A stream", "content": { *kind: { "schema": schema } } }))
            }
            Answer::Upgrade => {
                ("101", json!({ "description": "The connection speaks something else from here on" }))
            }
        };
        json!({ status: answer, "default": problem })
    }
}

pub(super) fn document(endpoints: &[Endpoint]) -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let mut paths = Map::new();
    for endpoint in endpoints {
        let operation = endpoint.operation(&mut generator);
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        path[endpoint.method] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Vimana node",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The local API of a node: what shall run there, and what does.",
        },
        "paths": paths,
        "components": { "schemas": generator.take_definitions(true) },
    })
}
