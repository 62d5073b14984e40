def greet(data, params):
    return len(data)
