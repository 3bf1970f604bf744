BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0005');
CREATE TABLE downloads (
	id VARCHAR(255) NOT NULL, 
	reference TEXT NOT NULL, 
	source VARCHAR(255) NOT NULL, 
	repo TEXT NOT NULL, 
	"commit" VARCHAR(255) NOT NULL, 
	licence TEXT NOT NULL, 
	files JSON NOT NULL, 
	state VARCHAR(255) NOT NULL, 
	error JSON, 
	model_key VARCHAR(255) NOT NULL, 
	started_at FLOAT NOT NULL, 
	finished_at FLOAT NOT NULL, 
	CONSTRAINT pk_downloads PRIMARY KEY (id)
);
CREATE TABLE instances (
	id VARCHAR(255) NOT NULL, 
	model_key VARCHAR(255) NOT NULL, 
	on_demand BOOLEAN NOT NULL, 
	settings JSON NOT NULL, 
	started_at FLOAT NOT NULL, 
	token VARCHAR(255) NOT NULL, 
	address TEXT NOT NULL, 
	pid INTEGER, 
	pid_started VARCHAR(255), presets JSON, ttl FLOAT, placement JSON, 
	CONSTRAINT pk_instances PRIMARY KEY (id)
);
CREATE TABLE models (
	"key" VARCHAR(255) NOT NULL, 
	path TEXT NOT NULL, 
	source TEXT NOT NULL, 
	display_name TEXT NOT NULL, 
	facts JSON NOT NULL, 
	size BIGINT NOT NULL, 
	changed BIGINT NOT NULL, 
	imported_at FLOAT NOT NULL, provenance JSON, default_preset VARCHAR(255), replicas JSON, 
	CONSTRAINT pk_models PRIMARY KEY ("key"), 
	CONSTRAINT uq_models_path UNIQUE (path)
);
INSERT INTO "models" VALUES('acme/tiny','{models}/Acme/Tiny-GGUF/Tiny.Q4_1.gguf','{models}/Acme/Tiny-GGUF/Tiny.Q4_1.gguf','Tiny','{"title": "Smollm2 135M 8k Lc100K Mix1 Ep2", "architecture": "llama", "quantization": "Q4_1", "bits_per_weight": 5.74, "size_bytes": 98362432, "parameters": 134515008, "layers": 2, "context_length": 8192, "embedding_length": 576, "chat_template": null, "embedding": false, "sampling_defaults": {}, "shape": {"tensor_bytes": 96576768, "embedding_length": 576, "vocabulary": 49152, "heads": 9, "feed_forward": 1536, "key_widths": [192, 192], "value_widths": [192, 192], "sliding_window": 0, "sliding_layers": [false, false], "state": 0, "recurrent_layers": 0}, "licence": "apache-2.0", "made_for_tools": false, "made_for_reasoning": false, "version": 3}',98362432,1796073935607821520,1796074307.5,'null','precise','{"least": 1, "most": 2}');
CREATE TABLE presets (
	name VARCHAR(255) NOT NULL, 
	version INTEGER NOT NULL, 
	model_key VARCHAR(255), 
	settings JSON NOT NULL, 
	changed_at FLOAT NOT NULL, 
	CONSTRAINT pk_presets PRIMARY KEY (name, version)
);
INSERT INTO "presets" VALUES('precise',1,NULL,'{"inference": {"temperature": 0.2}}',1.79607430768205046656e+09);
CREATE TABLE responses (
	id VARCHAR(255) NOT NULL, 
	owner VARCHAR(255) NOT NULL, 
	kind VARCHAR(255) NOT NULL, 
	previous_id VARCHAR(255), 
	created_at FLOAT NOT NULL, 
	written_at FLOAT NOT NULL, 
	expires_at FLOAT NOT NULL, 
	size INTEGER NOT NULL, 
	body BLOB NOT NULL, 
	CONSTRAINT pk_responses PRIMARY KEY (id)
);
INSERT INTO "responses" VALUES('resp_1','','openai',NULL,1796074308.0,1.79607430937972354888e+09,9000000000.0,2,X'7B7D');
CREATE INDEX ix_instances_model_key ON instances (model_key);
CREATE INDEX ix_responses_expires_at ON responses (expires_at, size);
COMMIT;
