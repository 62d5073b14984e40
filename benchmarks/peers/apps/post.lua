-- POSTs one file again and again: wrk -s post.lua URL -- FILE CONTENT-TYPE [ACCEPT]. Prints the result as JSON.
function init(args)
    local file = assert(io.open(args[1], "rb"))
    wrk.method = "POST"
    wrk.body = file:read("*a")
    file:close()
    wrk.headers["Content-Type"] = args[2]
    wrk.headers["Accept"] = args[3] or "*/*"
end

function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        '\n{"requests": %d, "seconds": %.6f, "connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d, ',
        summary.requests, summary.duration / 1e6, errors.connect, errors.read, errors.write, errors.timeout,
        errors.status))
    io.write(string.format(
        '"p50": %.3f, "p90": %.3f, "p99": %.3f, "max": %.3f}\n', latency:percentile(50) / 1e3,
        latency:percentile(90) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
