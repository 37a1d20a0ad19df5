"""One line of a catalogue, as spreadsheets write it."""


def fields(line):
    """Return the fields of a line: separated by commas; quoted ones may hold commas, and quotes written twice.

    Raises ValueError where a quote is not closed.
    """
    result, field, quoted = [], "", False
    for char in line:
        if char == '"':
            quoted = not quoted
        elif char == "," and not quoted:
            result.append(field)
            field = ""
        else:
            field += char
    result.append(field)
    return result
