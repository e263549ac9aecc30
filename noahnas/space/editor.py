"""The JSON Schema of space files, so that an editor completes and checks them."""

from __future__ import annotations

from typing import Any

from noahnas.registry import installed
from noahnas.space.declaration import MAX_CHOICES, MAX_DIM, TIES, schema_of
from noahnas.space.schema import Attribute

NUMBER = r"[0-9]+(\.[0-9]+)?"
COUNT = rf"^{NUMBER}\s*([kKmMgG]|%\s+of\s+(backbone|dearest))?$"
SELECTOR = r"^(-?[0-9]+|[0-9]+-[0-9]*|(last|every) [1-9][0-9]*)$"
_DIM = {"type": "integer", "minimum": 0, "maximum": MAX_DIM}


def json_schema() -> dict[str, Any]:
    """The schema of space files, with the attributes of every installed prompt module."""
    modules = {name: _module(name) for name in installed("noahnas.modules")}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "noahnas search space",
        "type": "object",
        "additionalProperties": False,
        "required": ["name"],
        "anyOf": [{"required": ["modules"]}, {"required": ["extends"]}],
        "properties": {
            "name": {"type": "string", "description": "What the space is called."},
            "description": {"type": "string", "description": "One line about it."},
            "extends": {
                "type": "string",
                "description": "A shipped space by name, or a .yaml file in this folder or below.",
            },
            "modules": {
                "type": "object",
                "description": "Prompt modules; null drops one of the space that this extends.",
                "minProperties": 1,
                "additionalProperties": False,
                "properties": modules,
            },
            "budget": _budget(),
            "rules": {
                "description": "Relations that every architecture obeys.",
                "type": ["array", "null"],
                "minItems": 1,
                "items": {
                    "type": "string",
                    "minLength": 1,
                    "examples": [
                        "at most 2 modules per block",
                        "lora.dim non-decreasing",
                        "if vpt.depth == all then adapter.dim <= 16",
                    ],
                },
            },
        },
    }


def _module(name: str) -> dict[str, Any]:
    depth = {
        "oneOf": [
            {"type": "integer", "minimum": 0},
            {"type": "string", "pattern": "^(all|[1-9][0-9]*/[1-9][0-9]*)$"},
        ]
    }
    properties: dict[str, Any] = {
        "dim": _listed(_DIM, "Its size in each block; 0 = absent."),
        "depth": _listed(depth, "How many blocks have it: counts, fractions, or all."),
        "from": {"enum": ["first", "last", None], "description": "The end that depth counts from."},
        "tie": {"enum": [*TIES, None], "description": "Which blocks share a dim."},
        "blocks": {
            "type": ["object", "null"],
            "description": "Dims of selected blocks: 0-5, 6-, -1, last 3, every 2.",
            "minProperties": 1,
            "additionalProperties": False,
            "patternProperties": {SELECTOR: _listed(_DIM, "Dims of these blocks.")},
        },
    }
    for key, attribute in schema_of(name).items():
        properties[key] = _attribute(attribute)
    return {"type": ["object", "null"], "additionalProperties": False, "properties": properties}


def _attribute(attribute: Attribute) -> dict[str, Any]:
    value: dict[str, Any]
    if attribute.choices:
        value = {"enum": list(dict.fromkeys([*attribute.choices, attribute.default]))}
    else:
        value = {"type": "number"}
        value |= {"minimum": attribute.low} if attribute.low > float("-inf") else {}
        value |= {"maximum": attribute.high} if attribute.high < float("inf") else {}
        if type(attribute.default) not in (int, float):
            value = {"oneOf": [value, {"const": attribute.default}]}
    tied = {"enum": list(TIES)}
    forms = _listed(value, f"{attribute.help}; {attribute.default} unless told.")
    forms["anyOf"][2]["properties"]["tie"] = tied
    forms["anyOf"].append(
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["choices"],
            "properties": {"choices": {"anyOf": forms["anyOf"][:3]}, "tie": tied},
        }
    )
    return forms


def _listed(value: dict[str, Any], description: str) -> dict[str, Any]:
    """One value, a list of distinct ones, or a range."""
    number = {"type": "number"}
    span = {
        "type": "object",
        "additionalProperties": False,
        "required": ["from", "to"],
        "oneOf": [{"required": ["step"]}, {"required": ["factor"]}],
        "properties": {
            "from": number,
            "to": number,
            "step": {"type": "number", "exclusiveMinimum": 0},
            "factor": {"type": "number", "exclusiveMinimum": 1},
        },
    }
    several = {
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_CHOICES,
        "uniqueItems": True,
        "items": value,
    }
    return {"description": description, "anyOf": [value, several, span]}


def _budget() -> dict[str, Any]:
    count = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": COUNT}]}
    window = {
        "type": "object",
        "additionalProperties": False,
        "anyOf": [{"required": ["max"]}, {"required": ["min"]}],
        "properties": {"max": count, "min": count, "head": {"type": "boolean"}},
    }
    params = "Trainable parameters, such as 0.64M, 0.5% of backbone or 40% of dearest."
    return {
        "type": ["object", "null"],
        "description": "What an architecture may cost.",
        "minProperties": 1,
        "additionalProperties": False,
        "properties": {
            "params": {"description": params, "anyOf": [*count["anyOf"], window, {"type": "null"}]},
            "flops": {
                "description": "Relative to the frozen backbone, such as 1.05x.",
                "type": ["string", "null"],
                "pattern": rf"^{NUMBER}\s*x$",
            },
            "latency": {
                "description": "Measured, per image: 20ms, or 1.2x the frozen backbone's.",
                "type": ["string", "null"],
                "pattern": rf"^{NUMBER}\s*(ms|x)$",
            },
        },
    }
