"""One line of a catalogue, as spreadsheets write it."""


def fields(line):
    """Return the fields of a line: separated by commas; quoted ones may hold commas, and quotes written twice.

    Raises ValueError where a quote is not closed.
    """
    result, field, quoted = [], "", False
    at = 0
    while at < len(line):
        char = line[at]
        at += 1
        if char == '"' and quoted and line[at : at + 1] == '"':
            field += char
            at += 1
        elif char == '"':
            quoted = not quoted
        elif char == "," and not quoted:
            result.append(field)
            field = ""
        else:
            field += char
    if quoted:
        raise ValueError("a quote is not closed")
    result.append(field)
    return result
