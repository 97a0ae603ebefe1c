"""Read YAML of another person as plain values: tags, aliases and repeated keys are refused."""

from __future__ import annotations

from harness.errors import UserError


def plain(text: str, where: str, longest: int, deepest: int) -> object:
    """Return the plain values of a YAML text. Raises UserError.

    `where` names the file in messages. The text may have at most `longest` characters and `deepest`
    nested levels, because YAML's parser is slow for long and for deeply nested texts.
    """
    import yaml

    if len(text) > longest:
        raise UserError(f"{where} is too long: at most {longest} characters are allowed.")
    depth = 0
    try:
        for event in yaml.parse(text):
            # nested aliases can expand to a value that fills the memory
            if isinstance(event, yaml.AliasEvent):
                raise UserError(f"{where} uses YAML aliases: write the values out.")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > deepest:
                raise UserError(
                    f"{where} is nested {depth} levels deep: at most {deepest} are allowed."
                )
        nodes = [yaml.compose(text)]
        for node in nodes:  # the loop appends to `nodes`: breadth first
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
