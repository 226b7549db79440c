-- wrk -s load.lua URL -- BYTES: the same request again and again, with a body of BYTES where that is not 0.
-- Without request() and response() here, wrk sends a request that it has prepared once and runs no Lua in between.

function init(args)
    local size = tonumber(args[1])
    if size > 0 then
        wrk.method = "POST"
        wrk.headers["Content-Type"] = "application/octet-stream"
        wrk.body = string.rep("x", size)
    end
end

local function percentile(latency, share)
    return #latency > 0 and string.format("%.6f", latency:percentile(share) / 1e6) or "null"
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        '\n{"requests": %d, "seconds": %.6f, "errors": %d, "p50": %s, "p99": %s}\n',
        summary.requests - errors.status,
        summary.duration / 1e6,
        errors.connect + errors.read + errors.write + errors.timeout + errors.status,
        percentile(latency, 50),
        percentile(latency, 99)
    ))
end
