"""Reads YAML that someone else wrote as plain values: no tags, no aliases, each key once."""

from __future__ import annotations

from harness.errors import UserError


def plain(text: str, where: str, longest: int, deepest: int) -> object:
    """Return the plain values of a YAML text. Raises UserError.

    `where` names the file in messages. The text may have `longest` characters and be nested
    `deepest` deep, since YAML's parser is slow for long and for deep texts.
    """
    import yaml

    if len(text) > longest:
        raise UserError(f"{where} is too long: {longest} characters are the most.")
    depth = 0
    try:
        for event in yaml.parse(text):
            # an alias of aliases of aliases, written out, would fill the memory
            if isinstance(event, yaml.AliasEvent):
                raise UserError(f"{where} uses YAML aliases: write the values out.")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > deepest:
                raise UserError(f"{where} is nested {depth} deep: {deepest} is the most.")
        nodes = [yaml.compose(text)]
        for node in nodes:  # grows: breadth first
            if isinstance(node, yaml.MappingNode):
                keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
                seen: set[str] = set()
                for key in keys:
                    if key in seen:
                        raise UserError(f"{where} has the key '{key}' twice: leave one out.")
                    seen.add(key)
                nodes += [value for _, value in node.value]
            elif isinstance(node, yaml.SequenceNode):
                nodes += node.value
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # a date or number that Python refuses
        reason = " ".join(str(error).split()).replace("<unicode string>", "it")
        raise UserError(f"{where} is not plain YAML: {reason}.") from error
