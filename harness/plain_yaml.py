"""YAML that someone else wrote, as plain values: no tags, no aliases, each key once."""

from __future__ import annotations

from harness.errors import UserError


def plain(text: str, where: str, longest: int, deepest: int) -> object:
    """What `text` says. `where` begins the sentences; at most `longest` characters, `deepest` deep.

    The limits are there because YAML's parser is slow in both. Raises UserError.
    """
    import yaml

    if len(text) > longest:
        raise UserError(f"{where} has more than {longest} characters: that is too long.")
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
                        raise UserError(f"{where} says '{key}' twice: only one would count.")
                    seen.add(key)
                nodes += [value for _, value in node.value]
            elif isinstance(node, yaml.SequenceNode):
                nodes += node.value
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # a date or number that Python refuses
        said = " ".join(str(error).split()).replace("<unicode string>", "it")
        raise UserError(f"{where} is not YAML: {said}.") from error
