from lookup_table import Lookup

import modelpack

model = Lookup("city", {"Oslo": 709.0, "Bergen": 289.0}, otherwise=0.5)
package = modelpack.save(model, "towns", example=[{"city": "Oslo"}, {"city": "Rome"}], version="1.0")
print(package.plan().chosen.trust)
print(modelpack.load("towns").predict([{"city": "Bergen"}]))
