-- wrk -s mix.lua URL -- FAST_PATH SLOW_PATH EVERY: one request in EVERY goes to SLOW_PATH; both kinds are timed by themselves.
--
-- wrk tells response() neither the connection nor the time, so this needs as many wrk threads as connections: each thread
-- has its own Lua state, in which request() and response() then alternate. Each thread counts its requests, so that
-- the share is right whatever the latencies; they begin at different places of the count, or all would be slow at once.

local ffi = require("ffi")
ffi.cdef([[
    typedef struct { long seconds; long nanoseconds; } moment;
    int clock_gettime(int clock, moment *now);
]])
local CLOCK_MONOTONIC = 1
local moment = ffi.new("moment")
local threads = {}

local function now()
    ffi.C.clock_gettime(CLOCK_MONOTONIC, moment)
    return tonumber(moment.seconds) + tonumber(moment.nanoseconds) / 1e9
end

function setup(thread)
    thread:set("count", #threads)
    table.insert(threads, thread)
end

function init(args)
    fast_request = wrk.format("GET", args[1])
    slow_request = wrk.format("GET", args[2])
    every = tonumber(args[3])
    -- Global, as are all names that done() asks for.
    fast, slow = {}, {}
end

function request()
    is_slow = count % every == 0
    count = count + 1
    began = now()
    return is_slow and slow_request or fast_request
end

function response(status)
    if status < 400 then
        table.insert(is_slow and slow or fast, now() - began)
    end
end

local function percentile(durations, share)
    local duration = durations[math.ceil(#durations * share / 100)]
    return duration and string.format("%.6f", duration) or "null"
end

local function collect(name)
    local all = {}
    for _, thread in ipairs(threads) do
        for _, duration in ipairs(thread:get(name)) do
            table.insert(all, duration)
        end
    end
    table.sort(all)
    return all
end

function done(summary)
    local errors = summary.errors
    local fast, slow = collect("fast"), collect("slow")
    io.write(string.format(
        '\n{"requests": %d, "seconds": %.6f, "errors": %d, "p50": %s, "p99": %s, "slow_p50": %s, "slow_p99": %s}\n',
        summary.requests - errors.status,
        summary.duration / 1e6,
        errors.connect + errors.read + errors.write + errors.timeout + errors.status,
        percentile(fast, 50),
        percentile(fast, 99),
        percentile(slow, 50),
        percentile(slow, 99)
    ))
end
