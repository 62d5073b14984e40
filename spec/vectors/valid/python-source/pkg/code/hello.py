def greet(data, params):
    return [f'hello {name}' for name in data]
