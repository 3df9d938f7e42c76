-- Orders one piece of a product, another one each time.
local id = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
function setup(thread) thread:set("id", math.random(0, 27)) end
function request()
  id = (id + 1) % 28
  return wrk.format(nil, nil, nil, '{"items":[{"productId":' .. (id + 1) .. ',"quantity":1}]}')
end
-- One line at the end: requests/s, p50, p95, p99 in milliseconds, answers that were not 2xx or 3xx, broken requests.
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("RESULT %.0f %.2f %.2f %.2f %d %d\n", summary.requests / (summary.duration / 1e6),
    latency:percentile(50) / 1000, latency:percentile(95) / 1000, latency:percentile(99) / 1000,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
