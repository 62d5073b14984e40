open('modelpack-was-here', 'w').close()


def greet(data, params):
    return len(data)
