-- wrk's script: posts the bodies in turn, and writes what was measured as one line of JSON.
-- wrk ... -s closed_loop.lua URL -- BODY_FILE [BODY_FILE ...]
local bodies, turn = {}, 0

function init(arguments)
   for _, name in ipairs(arguments) do
      local file = assert(io.open(name, "rb"))
      bodies[#bodies + 1] = wrk.format("POST", nil, { ["Content-Type"] = "application/json" }, file:read("*a"))
      file:close()
   end
end

function request()
   turn = turn % #bodies + 1
   return bodies[turn]
end

function done(summary, latency)
   local percentiles = {}
   for percent = 1, 99 do
      percentiles[percent] = string.format("%.1f", latency:percentile(percent))
   end
   local errors = summary.errors
   io.write(string.format(
      '{"requests":%d,"microseconds":%d,"refused":%d,"broken":%d,"percentiles_us":[%s]}\n',
      summary.requests, summary.duration, errors.status,
      errors.connect + errors.read + errors.write + errors.timeout, table.concat(percentiles, ",")))
end
