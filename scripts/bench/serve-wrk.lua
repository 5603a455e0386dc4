-- Requests for wrk. After `--` come: what to do, the path before a key, the number of keys.
--   get         any of the keys rec-0, rec-1 and so on
--   overwrite   1 KiB into any of these keys
--   create      1 KiB into a new key each time
--   page        1,000 keys from any of these on
local threads = 0

function setup(thread)
    thread:set('number', threads)
    threads = threads + 1
end

function init(arguments)
    what, before, count = arguments[1], arguments[2], tonumber(arguments[3])
    math.randomseed(number + 7)
    body = string.rep('x', 1024)
    made = 0
    if what ~= 'get' and what ~= 'page' then wrk.headers['Content-Type'] = 'application/octet-stream' end
    ready = {}
    if what == 'get' or what == 'overwrite' then
        for at = 0, count - 1 do
            local path = before .. 'rec-' .. at
            ready[at] = what == 'get' and wrk.format('GET', path) or wrk.format('PUT', path, nil, body)
        end
    end
end

function request()
    if what == 'create' then
        made = made + 1
        return wrk.format('PUT', before .. 'new-' .. number .. '-' .. made, nil, body)
    end
    local at = math.random(0, count - 1)
    if what == 'page' then return wrk.format('GET', before .. 'rec-' .. at) end
    return ready[at]
end

function done(summary, latency)
    local failed = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status + summary.errors.timeout
    io.write(string.format('RATE %.2f FAILED %d MEDIAN %.1f\n', summary.requests / summary.duration * 1e6, failed, latency:percentile(50)))
end
